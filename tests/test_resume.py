"""A run that was stopped, killed, interrupted, and started again ends bit for bit where an undisturbed one does."""

import dataclasses
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from condgen.errors import BadInput
from condgen.model import Optimizer
from condgen.training import checkpoint, loop, schedules
from tiny import AE, CGAN, CVAE, MIRZA, assert_same, measured, saved, trained

PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
STYLEGAN = replace(
    CGAN,
    model="stylegan.StyleGAN",
    steps=8,
    options={"z_dim": 4, "width": 4, "widest": 8, "depth": 2, "lazy": 4, "path_length": 2.0, "path_lazy": 3, "ada": 0.6},
)
KINDS = {
    "cgan": CGAN,
    "cgan-bf16": replace(CGAN, precision="bf16"),
    "cgan-mirza": MIRZA,
    "cvae": replace(CVAE, optimizers={"*": Optimizer("AdamW", lr=1e-3, schedule="cosine", weight_decay=0.01)}),
    "cvae-bf16": replace(CVAE, precision="bf16"),
    "stylegan": STYLEGAN,
}


@pytest.mark.parametrize("kind", KINDS)
def test_stopping_at_every_step_changes_nothing(kind, tmp_path):
    """One run leaves its loop after every single step; from each of these places another goes on to the end."""
    run, chain = KINDS[kind], tmp_path / "chain"
    whole = trained(run, tmp_path / "whole")
    for stop in range(1, run.steps + 1):
        assert trained(run, chain, stop).step == stop
        assert saved(chain).state["step"] == stop
        out = copied(chain, tmp_path / str(stop))
        if stop < run.steps:
            assert_same(trained(run, out), whole)
        assert_same(saved(out), saved(tmp_path / "whole"))
        assert measured(out) == measured(tmp_path / "whole")
        shutil.rmtree(out)


def test_optimiser_states_are_compared_too():
    """What the other tests rest on: the compared mapping holds weights, averages, moments and momenta."""
    names = tiny.tensors_of(trained(CGAN)).keys()
    assert {n.split("/")[0] for n in names} == {"model", "ema", "optimizers", "rows"}
    assert {n.rsplit(".")[-1] for n in names if n.startswith("optimizers/")} == {"exp_avg", "exp_avg_sq", "step"}
    assert any(n.endswith("momentum_buffer") for n in tiny.tensors_of(trained(MIRZA)))


def test_a_longer_run_goes_on_from_a_finished_one(tmp_path):
    trained(replace(CGAN, steps=7), tmp_path / "run")
    assert_same(trained(CGAN, tmp_path / "run"), trained(CGAN))


def test_samples_and_logs_do_not_move_the_weights(tmp_path):
    plain = trained(CGAN)
    assert_same(trained(replace(CGAN, sample_every=1, save_every=2, log_every=5), tmp_path), plain)
    assert len(list((tmp_path / "samples").glob("*.png"))) == CGAN.steps


def test_a_finished_run_does_nothing_and_says_so(tmp_path, caplog):
    trained(CGAN, tmp_path)
    before = {f: f.read_bytes() for f in sorted(tmp_path.rglob("*")) if f.is_file()}
    with caplog.at_level("INFO", logger="condgen"):
        assert list(tiny.steps(CGAN, tmp_path)) == []
    assert "trained already: at step 12 of 12" in caplog.text
    assert {f: f.read_bytes() for f in sorted(tmp_path.rglob("*")) if f.is_file()} == before


# --- what may change, and what may not ------------------------------------------------------------------------------------

CHANGES = {
    "batch": {"batch": 12},
    "seed": {"seed": 1},
    "options": {"options": {**CGAN.options, "r1": 0.5}},
    "optimizers": {"optimizers": {"*": Optimizer(lr=2e-3, betas=(0.5, 0.99))}},
    "clip": {"clip": 1.0},
    "precision": {"precision": "bf16"},
    "half_life_images": {"half_life_images": 5.0},
}


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A run that stands at step 2 of 12."""
    out = tmp_path_factory.mktemp("half")
    trained(CGAN, out, stop=2)
    return out


@pytest.mark.parametrize("name", CHANGES)
def test_a_changed_run_is_refused_by_name(name, half):
    changed = replace(CGAN, **CHANGES[name])
    with pytest.raises(BadInput, match=rf"different run: {name} was .* is ") as refusal:
        next(tiny.steps(changed, half))
    # And it names nothing else.
    assert [f.name for f in dataclasses.fields(CGAN) if f" {f.name} was " in str(refusal.value)] == [name]


def test_several_changes_are_all_named(half):
    with pytest.raises(BadInput, match=r"batch was 16, is 12; seed was 0, is 3"):
        next(tiny.steps(replace(CGAN, batch=12, seed=3), half))


@pytest.mark.parametrize(
    "change", [{"save_every": 1}, {"log_every": 7}, {"sample_every": 4}, {"steps": 5}, {"source": "mine"}, {"metrics": ("frechet",)}]
)
def test_what_does_not_move_the_weights_may_change(change, half, tmp_path):
    out = copied(half, tmp_path / "copy")
    assert next(tiny.steps(replace(CGAN, **change), out)).step == 3


@pytest.mark.parametrize("steps", [8, 12, 20])
@pytest.mark.parametrize("schedule", schedules.SCHEDULES)
def test_another_length_is_said_where_the_schedule_moves_with_it(schedule, steps, tmp_path, caplog):
    run = replace(AE, optimizers={"*": Optimizer(lr=1e-3, schedule=schedule)})
    trained(run, tmp_path, stop=6)
    longer = replace(run, steps=steps)
    state = trained(longer, tmp_path)
    said = [r.message for r in caplog.records if r.levelname == "WARNING"]
    if steps == run.steps or schedule not in schedules.STRETCHED:
        assert said == []
        assert_same(state, trained(longer))
    else:
        (sentence,) = said
        assert sentence.startswith(
            f"steps was 12, is {steps}: the {schedule} schedule of the learning rate moves with the length of the run"
        )
        assert sentence.endswith(f"not that of a run of {steps} steps from its start")


def test_the_schedules_that_move_with_the_length_are_named_as_such():
    for name in schedules.SCHEDULES:
        o = Optimizer(schedule=name)
        moves = any(schedules.at(step, 100, o) != schedules.at(step, 150, o) for step in range(100))
        assert moves == (name in schedules.STRETCHED)


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


def arrays(file: Path, seed: int = 0, names: tuple[str, ...] = ("a", "b")) -> None:
    draw = np.random.default_rng(seed)
    x = draw.integers(0, 256, (40, 8, 8, 1), dtype=np.uint8)
    np.savez(file, x=x, **{name: draw.integers(0, 3, 40) for name in names})


def test_changed_data_and_a_changed_schema_are_refused_by_name(tmp_path):
    file = tmp_path / "set.npz"
    arrays(file)
    run = replace(CGAN, data=str(file), split="train", steps=6)
    trained(run, tmp_path / "run", stop=3)
    arrays(file, seed=1)
    with pytest.raises(BadInput, match=r"different run: the data set was .*set\.npz"):
        next(tiny.steps(run, tmp_path / "run"))
    arrays(file, names=("a", "c"))
    with pytest.raises(BadInput, match=r"the schema was a: .* b: .*, is a: .* c: .*; the data set was"):
        next(tiny.steps(run, tmp_path / "run"))
    arrays(file)
    moved = file.rename(tmp_path / "moved.npz")
    assert next(tiny.steps(replace(run, data=str(moved)), tmp_path / "run")).step == 4  # content decides, not its name


def test_a_run_that_saved_nothing_yet_may_be_changed(tmp_path):
    with pytest.raises(BadInput, match="nothing was saved"):
        for step in tiny.steps(CGAN, tmp_path):
            step.state.optimizers["G"].step = refusing  # the second step fails before anything was saved
    assert (tmp_path / "run.json").exists()
    assert next(tiny.steps(replace(CGAN, seed=5), tmp_path)).step == 1


def refusing() -> None:
    raise BadInput("nothing was saved")


def test_two_trainings_cannot_share_a_folder(tmp_path):
    first = tiny.steps(CGAN, tmp_path)
    next(first)
    with pytest.raises(BadInput, match="another training is writing to"):
        next(tiny.steps(CGAN, tmp_path))
    first.close()
    assert next(tiny.steps(CGAN, tmp_path)).step == 2


# --- killed, interrupted --------------------------------------------------------------------------------------------------


def test_twenty_kills_change_nothing(tmp_path):
    """Each child is killed at a random moment of its start, a step or a save, and the next one goes on."""
    run, out, delays = replace(CGAN, save_every=2), tmp_path / "run", random.Random(0)
    reached, first = [0], 0.0
    assert tiny.ended(tiny.child(int, log=tmp_path / "log")) == 0  # from here on a start is a fork
    for i in range(20):
        began = time.monotonic()
        process = tiny.child(tiny.train_for, run, out, 100_000, log=tmp_path / "log")
        if i == 0:  # how long this machine takes to its first checkpoint, at its load of the moment
            while not (out / "checkpoints" / "step-000002").exists() and process.is_alive():
                time.sleep(0.005)
            first = min(time.monotonic() - began, 0.5)
        else:
            time.sleep(first * (2.5 if i % 4 == 0 else 1.5 * delays.random()))
        os.kill(process.pid, signal.SIGKILL)
        assert tiny.ended(process) == -signal.SIGKILL, (tmp_path / "log").read_text()
        found = checkpoint.newest(out / "checkpoints")
        reached.append(found.state["step"] if found else 0)
    assert reached == sorted(reached) and len(set(reached)) > 4
    whole = replace(run, steps=reached[-1] + 3)
    assert_same(trained(whole, out), trained(replace(whole, save_every=0)))
    assert [row["step"] for row in measured(out)] == [*range(1, whole.steps + 1)]
    assert tiny.drafts(out) == []


def interrupted_in_a_turn(words: list[str], number: int) -> int:
    """Work for a child: a signal arrives after D's gradient is computed and before D moves, in the fifth step."""
    from condgen.training import turns

    check, calls = turns.check_losses, []

    def checked(*args):
        calls.append(1)
        if len(calls) == 9:
            os.kill(os.getpid(), number)
        check(*args)

    turns.check_losses = checked
    return tiny.command(words)


@pytest.mark.parametrize("name, code", [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_in_the_middle_of_a_step_saves_first(name, code, tmp_path):
    log, words = tmp_path / "log", [*tiny.words_for(CGAN), "--out", str(tmp_path / "run")]
    assert tiny.ended(tiny.child(interrupted_in_a_turn, words, int(signal.Signals[name]), log=log)) == code
    assert f"stopped by {name} and saved: 5 of 12 steps" in log.read_text()
    assert saved(tmp_path / "run").state["step"] == 5
    assert not (tmp_path / "run" / "config.json").exists()  # nothing leaves a run that is not done
    assert tiny.ended(tiny.child(tiny.command, words, log=log)) == 0
    assert (tmp_path / "run" / "config.json").exists()
    assert_same(saved(tmp_path / "run"), trained(CGAN))


def test_sigterm_to_the_real_command(tmp_path):
    out = tmp_path / "run"
    words = [*tiny.words_for(replace(CGAN, steps=100_000)), "--out", str(out)]
    process = subprocess.Popen([sys.executable, "-m", "condgen", *words], env=tiny.environment(), **PIPES)
    wait_for_lines(out / "metrics.jsonl", 5, process)
    process.send_signal(signal.SIGTERM)
    text = said(process)
    stopped = saved(out).state["step"]
    assert process.returncode == 143 and f"stopped by SIGTERM and saved: {stopped} of 100000 steps" in text
    assert stopped >= 5
    run = replace(CGAN, steps=stopped + 2)
    assert_same(trained(run, out), trained(run))


def wait_for_lines(file: Path, n: int, process: subprocess.Popen, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not (file.exists() and file.read_text().count("\n") >= n):
        assert process.poll() is None and time.monotonic() < end, said(process, 1)
        time.sleep(0.02)


def said(process: subprocess.Popen, seconds: float = 100.0) -> str:
    """All that it printed, once it has ended; one that does not end in time is killed."""
    try:
        return process.communicate(timeout=seconds)[0]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0] + "\n(did not end)"


def test_a_second_signal_is_obeyed_at_once_and_loses_nothing(tmp_path):
    """Two signals in one step: it does not end, the checkpoint before it stays."""
    trained(CGAN, tmp_path / "run", stop=2)
    words = [*tiny.words_for(CGAN), "--out", str(tmp_path / "run")]
    code = tiny.ended(tiny.child(interrupted_twice, words, log=tmp_path / "log"))
    assert code == 130
    assert saved(tmp_path / "run").state["step"] == 2
    assert_same(trained(CGAN, tmp_path / "run"), trained(CGAN))


def interrupted_twice(words: list[str]) -> int:
    from condgen.training import turns

    check = turns.check_losses

    def checked(*args):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        check(*args)

    turns.check_losses = checked
    return tiny.command(words)


# --- randomness -----------------------------------------------------------------------------------------------------------


def test_noise_and_dropout_draw_from_different_streams():
    """(seed, step) and (seed, step, rank 0) must not be one number: dropout would then follow the latents."""
    step = next(tiny.steps(CGAN))
    loop.seed_noise(CGAN, step.state, loop.make_fabric("32"))
    assert torch.initial_seed() != step.state.model.noise.generator.initial_seed()
    assert not torch.equal(torch.randn(8), step.state.model.noise.normal(8))


def test_ae_ends_the_same_without_and_with_a_folder(tmp_path):
    assert_same(trained(AE, tmp_path), trained(AE))
