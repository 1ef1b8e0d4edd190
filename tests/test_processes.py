"""Several processes train what one trains, write once, and end together whatever happens to one of them."""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from condgen.training import turns
from test_resume import PIPES, STYLEGAN, said, wait_for_lines
from tiny import AE, CVAE, assert_close, assert_same, measured, saved, trained

TOGETHER = 1e-5
# With fewer channels each is a group of its own: a bias before such a norm has no gradient but rounding, which Adam blows up.
CGAN = replace(tiny.CGAN, options={**tiny.CGAN.options, "width": 16})


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def together(work, *args, log: Path, world: int = 2, rank_env=lambda rank: {}):
    """`work(*args)` in as many processes as `torchrun --nproc-per-node` starts, in the environment that it gives them."""
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world)}
    shared |= {"GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": "0", "TORCHELASTIC_MAX_RESTARTS": "0"}
    each = [shared | {"RANK": str(r), "LOCAL_RANK": str(r)} | rank_env(r) for r in range(world)]
    return [tiny.child(work, *args, log=log.with_name(f"{log.name}-{r}"), env=env) for r, env in enumerate(each)]


def codes(processes) -> list[int | None]:
    return [tiny.ended(p) for p in processes]


def logs(log: Path) -> str:
    return "\n".join(f.read_text() for f in sorted(log.parent.glob(f"{log.name}-*")))


# --- the same numbers -----------------------------------------------------------------------------------------------------

KINDS = {
    "cgan": CGAN,
    "cgan-clipped": replace(CGAN, clip=0.5, options={**CGAN.options, "gp": 1.0}),
    "cvae": CVAE,
    "ae": AE,
}


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_train_what_one_trains(kind, tmp_path):
    """Conv nets with R1 and its lazy steps, a VAE's noise, Adam: equal to 1e-5 on the joint batch."""
    run = KINDS[kind]
    assert codes(together(tiny.train_for, run, tmp_path / "two", log=tmp_path / "log")) == [0, 0], logs(tmp_path / "log")
    trained(run, tmp_path / "one")
    assert_close(saved(tmp_path / "two"), saved(tmp_path / "one"), TOGETHER)
    one, two = measured(tmp_path / "one"), measured(tmp_path / "two")  # losses are those of the joint batch
    assert [r["step"] for r in two] == [r["step"] for r in one] == [*range(1, run.steps + 1)]
    assert all(two[i][k] == pytest.approx(v, rel=1e-4, abs=1e-5) for i, row in enumerate(one) for k, v in row.items())


def test_four_processes_too(tmp_path):
    run = replace(CGAN, steps=3)
    assert codes(together(tiny.train_for, run, tmp_path / "four", log=tmp_path / "log", world=4)) == [0] * 4, logs(tmp_path / "log")
    assert_close(saved(tmp_path / "four"), trained(run), TOGETHER)


def test_a_run_goes_on_with_more_and_with_fewer_processes(tmp_path):
    out = tmp_path / "run"
    trained(CGAN, out, stop=3)
    for world, steps in ((2, 7), (1, 9), (2, 12)):
        found = codes(together(tiny.train_for, replace(CGAN, steps=steps), out, log=tmp_path / f"log{steps}", world=world))
        assert found == [0] * world, logs(tmp_path / f"log{steps}")
        assert saved(out).state["step"] == steps
    assert_close(saved(out), trained(CGAN), TOGETHER)


def test_two_processes_resume_bit_for_bit(tmp_path):
    half = replace(CGAN, steps=5)
    for out, runs in ((tmp_path / "whole", [CGAN]), (tmp_path / "parts", [half, CGAN])):
        for run in runs:
            assert codes(together(tiny.train_for, run, out, log=tmp_path / "log")) == [0, 0]
    assert_same(saved(tmp_path / "parts"), saved(tmp_path / "whole"))


def train_and_keep(run, out: Path) -> int:
    """Work for a child: train, and write what this process has come to."""
    *_, last = tiny.steps(run, out)
    weights = {name: p.detach() for name, p in last.state.model.named_parameters()}
    torch.save(weights, out.parent / f"weights-{os.environ['RANK']}.pt")
    return 0


def test_two_processes_stay_one_stylegan(tmp_path):
    """Each has its own crossover, penalties of its own rows and its own means; weights stay the same."""
    found = codes(together(train_and_keep, STYLEGAN, tmp_path / "run", log=tmp_path / "log"))
    assert found == [0, 0], logs(tmp_path / "log")
    one, two = (torch.load(tmp_path / f"weights-{rank}.pt") for rank in (0, 1))
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert saved(tmp_path / "run").state["step"] == STYLEGAN.steps and all(p.isfinite().all() for p in one.values())


# --- one writes -----------------------------------------------------------------------------------------------------------


def train_from_nothing(run, out: Path) -> int:
    """Work for a child: every process prepares the data store, at the same time; then one trains as the command does."""
    from condgen import api

    wrote = []
    plain = os.open

    def watched(path, flags, *args, **kwargs):
        if flags & (os.O_WRONLY | os.O_RDWR) and str(out) in str(path):
            wrote.append(str(path))
        return plain(path, flags, *args, **kwargs)

    os.open = watched
    for _ in api.train(run, out):
        pass
    (out.parent / f"rank-{os.environ['RANK']}").write_text("\n".join(wrote))
    return 0


def test_the_first_process_alone_writes_and_the_store_is_prepared_once(tmp_path):
    file, cache = tmp_path / "set.npz", tmp_path / "cache"
    draw = np.random.default_rng(0)
    np.savez(file, x=draw.integers(0, 256, (400, 16, 16, 1), dtype=np.uint8), a=draw.integers(0, 3, 400))
    run = replace(CGAN, data=str(file), split="train", steps=2)
    log = tmp_path / "log"
    assert codes(together(train_from_nothing, run, tmp_path / "run", log=log, rank_env=lambda rank: {"CONDGEN_CACHE": str(cache)})) == [
        0,
        0,
    ], logs(log)
    stores = list((cache / "data").iterdir())
    assert len(stores) == 1 and not stores[0].name.startswith(".")  # no folder of the one that came second
    assert (tmp_path / "rank-1").read_text() == ""
    files = {f.relative_to(tmp_path / "run").as_posix() for f in (tmp_path / "run").rglob("*") if f.is_file()}
    assert {"run.json", "metrics.jsonl", "config.json", "model.safetensors"} <= files
    assert tiny.drafts(tmp_path / "run") == [] and len(measured(tmp_path / "run")) == 2


# --- all end together -----------------------------------------------------------------------------------------------------


def test_a_batch_that_cannot_be_shared_is_refused_by_all(tmp_path):
    words = [*tiny.words_for(replace(CGAN, batch=15)), "--out", str(tmp_path / "run")]
    assert codes(together(tiny.command, words, log=tmp_path / "log")) == [2, 2]
    assert "batch 15, 2 process(es): the batch must be a multiple of the processes" in logs(tmp_path / "log")
    assert not (tmp_path / "run").exists()


def train_elsewhere(run, out: Path) -> int:
    """Work for a child: the second process sees another folder, as on a machine without the shared disk."""
    second = os.environ["RANK"] == "1"
    return tiny.command([*tiny.words_for(run), "--out", str(out / "other" if second else out)])


def test_processes_that_see_different_folders_refuse(tmp_path):
    trained(CGAN, tmp_path / "run", stop=4)
    assert codes(together(train_elsewhere, CGAN, tmp_path / "run", log=tmp_path / "log")) == [2, 2]
    assert "start from different steps (4, 0): all must see the same data and the same run folder" in logs(tmp_path / "log")


def train_other_data(run, out: Path) -> int:
    return tiny.command([*tiny.words_for(replace(run, split=f"train[:{60 + int(os.environ['RANK'])}]")), "--out", str(out)])


def test_processes_that_see_different_data_refuse(tmp_path):
    assert codes(together(train_other_data, CGAN, tmp_path / "run", log=tmp_path / "log")) == [2, 2]
    assert "start from different data" in logs(tmp_path / "log")


def train_with_nan_on_one(run, out: Path) -> int:
    """Work for a child: the second process finds a NaN in its part of the fourth batch."""
    from condgen.data.store import Dataset

    plain, calls = Dataset.batch, []

    def batch(self, rows):
        found = plain(self, rows)
        calls.extend([1] * (len(rows) == run.batch // 2))  # batches, not what `Model.start` looks at
        if os.environ["RANK"] == "1" and len(calls) == 4 and len(rows) == run.batch // 2:
            found.x[0, 0, 0, 0] = float("nan")
        return found

    Dataset.batch = batch
    return tiny.command([*tiny.words_for(run), "--out", str(out)])


def test_what_is_not_finite_on_one_stops_all(tmp_path):
    assert codes(together(train_with_nan_on_one, replace(CGAN, save_every=2), tmp_path / "run", log=tmp_path / "log")) == [3, 3]
    assert "D/game is nan at step 3; not finite: sample x of the batch" in (tmp_path / "log-1").read_text()
    assert "D/game is nan at step 3" in (tmp_path / "log-0").read_text()
    assert saved(tmp_path / "run").state["step"] == 2
    assert_close(trained(CGAN, tmp_path / "run"), trained(CGAN), TOGETHER)


def train_with_a_full_disk_on_the_first(run, out: Path) -> int:
    if os.environ["RANK"] == "0":
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    return tiny.command([*tiny.words_for(run), "--out", str(out)])


def test_an_error_on_one_does_not_leave_the_other_waiting(tmp_path):
    start = time.monotonic()
    found = codes(together(train_with_a_full_disk_on_the_first, replace(CGAN, save_every=2), tmp_path / "run", log=tmp_path / "log"))
    assert found[0] == 2 and found[1] != 0, logs(tmp_path / "log")
    assert time.monotonic() - start < 60


def train_short_of_memory_on_one(run, out: Path) -> int:
    """Work for a child: the second process has memory for four samples only, and runs out of it in the second turn."""
    from condgen.models import cgan

    plain = cgan.adversarial_turns

    def turns_of(model, batch, step):
        for i, turn in enumerate(plain(model, batch, step)):
            if i == 1 and step == 5 and os.environ["RANK"] == "1" and len(batch.x) > 4:
                raise torch.OutOfMemoryError("simulated")
            yield turn

    cgan.adversarial_turns = turns_of
    return tiny.train_for(run, out)


def test_where_memory_runs_out_on_one_all_take_smaller_parts(tmp_path):
    run = replace(CGAN, save_every=4)
    assert codes(together(train_short_of_memory_on_one, run, tmp_path / "run", log=tmp_path / "log")) == [0, 0], logs(tmp_path / "log")
    found = saved(tmp_path / "run")
    assert (found.state["step"], found.state["micro"]) == (12, 2)
    assert [r["step"] for r in measured(tmp_path / "run")] == [*range(1, 13)]


def leave_on_one(run, out: Path) -> int:
    """Work for a child: the second process leaves its loop at the third step, the first would go on."""
    for step in tiny.steps(run, out):
        if os.environ["RANK"] == "1" and step.step == 3:
            break
    print(f"ended at {step.step}")
    return 0


def test_where_one_leaves_all_leave_and_the_first_saves(tmp_path):
    assert codes(together(leave_on_one, CGAN, tmp_path / "run", log=tmp_path / "log")) == [0, 0]
    assert logs(tmp_path / "log").count("ended at 3") == 2
    assert saved(tmp_path / "run").state["step"] == 3


# --- the real torchrun ----------------------------------------------------------------------------------------------------


def torchrun(words: list[str]) -> subprocess.Popen:
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port()), "-m", "condgen"]
    return subprocess.Popen([*launch, *words], env=tiny.environment(), **PIPES)


def test_torchrun_saves_at_sigterm_and_goes_on_to_the_same_numbers(tmp_path):
    out = tmp_path / "run"
    process = torchrun([*tiny.words_for(replace(CGAN, steps=100_000)), "--out", str(out)])
    wait_for_lines(out / "metrics.jsonl", 3, process)
    process.send_signal(signal.SIGTERM)
    text = said(process)
    stopped = saved(out).state["step"]
    assert f"saved: {stopped} of 100000 steps" in text and stopped >= 3
    run = replace(CGAN, steps=stopped + 2)
    process = torchrun([*tiny.words_for(run), "--out", str(out)])
    text = said(process)
    assert process.returncode == 0, text
    assert_close(saved(out), trained(run), TOGETHER * max(1, run.steps / 12))  # rounding grows with the number of steps
    assert (out / "config.json").exists()


# --- the one place where gradients are averaged ---------------------------------------------------------------------------


def test_an_error_of_memory_is_known_by_its_words():
    assert turns.out_of_memory(torch.OutOfMemoryError("x"))
    assert turns.out_of_memory(
        RuntimeError("[enforce fail at alloc_cpu.cpp:119] DefaultCPUAllocator: can't allocate memory: you tried ...")
    )
    assert turns.out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"))
    assert not turns.out_of_memory(RuntimeError("size mismatch"))
    with pytest.raises(RuntimeError, match="can't allocate memory") as refusal:
        torch.empty(1 << 62, dtype=torch.uint8)
    assert turns.out_of_memory(refusal.value)
