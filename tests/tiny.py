"""Runs that take a fraction of a second, and processes that start at once, for the tests of training."""

import json
import multiprocessing
import os
import sys
from dataclasses import replace
from multiprocessing import forkserver
from pathlib import Path

import torch

from condgen import api
from condgen.data.store import Dataset
from condgen.model import Optimizer, Run
from condgen.training import loop
from condgen.training.checkpoint import Checkpoint, newest
from condgen.training.state import State

# 60 samples in batches of 16: 12 steps cross three ends of an epoch, each in the middle of a batch; r1 falls on steps 0, 4 and 8.
_DIGITS = {"data": "digits", "split": "train[:60]", "batch": 16, "steps": 12, "save_every": 0, "sample_every": 0, "log_every": 1}
ADAM = {"*": Optimizer(lr=1e-3, betas=(0.5, 0.99))}
CGAN = Run("cgan.CGAN", options={"z_dim": 4, "width": 4, "lazy": 4}, optimizers=ADAM, half_life_images=100.0, precision="32", **_DIGITS)
CVAE = Run(
    "cvae.CVAE", options={"z_dim": 4, "hidden": (16,), "prior_hidden": 8}, optimizers=ADAM, half_life_images=50.0, precision="32", **_DIGITS
)
AE = Run("ae.AE", options={"z_dim": 4, "hidden": (16,)}, optimizers=ADAM, precision="32", **_DIGITS)
MIRZA = Run(
    "cgan.CGAN",
    options={"z_dim": 4, "r1": 0.0, "nets": "mirza", "z_prior": "uniform"},
    optimizers={"*": Optimizer("SGD", lr=0.1, momentum=0.5, schedule="pylearn2")},
    precision="32",
    **_DIGITS,
)


def steps(run: Run, out: Path | None = None, data: Dataset | None = None):
    """The run's iterator, from fresh weights or from what lies in `out`."""
    loaded = data or api.dataset(run)
    return loop.train(run, api.build(run, loaded), loaded, out)


def trained(run: Run, out: Path | None = None, stop: int | None = None) -> State:
    """The state after the last step, or after leaving the loop at step `stop`."""
    for step in steps(run, out):
        if step.step == stop:
            break
    return step.state


def saved(out: Path) -> Checkpoint:
    """The newest whole checkpoint of a run's folder."""
    found = newest(out / "checkpoints")
    assert found is not None
    return found


def tensors_of(what: State | Checkpoint) -> dict[str, torch.Tensor]:
    """Weights, averages, optimiser states and rows, in one flat mapping."""
    groups = what.tensors() if isinstance(what, State) else what.tensors
    return {f"{group}/{name}": v for group, tensors in groups.items() for name, v in tensors.items()}


def assert_same(a: State | Checkpoint, b: State | Checkpoint) -> None:
    """Every tensor of both is torch.equal."""
    one, two = tensors_of(a), tensors_of(b)
    assert one.keys() == two.keys()
    assert [k for k in one if not torch.equal(one[k], two[k])] == []


def assert_close(a: State | Checkpoint, b: State | Checkpoint, within: float, groups: tuple[str, ...] = ("model", "ema")) -> None:
    """Every weight and every average differs by at most `within`."""
    one, two = tensors_of(a), tensors_of(b)
    assert one.keys() == two.keys()
    far = {k: float((one[k].float() - two[k].float()).abs().max()) for k in one if k.split("/")[0] in groups and one[k].numel()}
    assert {k: d for k, d in far.items() if not d <= within} == {}


def measured(out: Path) -> list[dict]:
    """The lines of metrics.jsonl without what a clock decides."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows]


def drafts(out: Path) -> list[Path]:
    """What an interrupted write left behind."""
    return [p for p in out.rglob(".*") if p.is_dir() or p.is_file()]


def words_for(run: Run) -> list[str]:
    """The command line that asks for this run of a CGAN."""
    options = [f"--model.{k}={v}" for k, v in run.options.items()]
    fields = [
        f"--{k}={getattr(run, k)}"
        for k in ("split", "batch", "steps", "seed", "save_every", "sample_every", "log_every", "precision", "half_life_images")
    ]
    o = run.optimizer("*")
    return [
        "train",
        "cgan",
        "--data",
        run.data,
        *fields,
        *options,
        f"--optimizer.lr={o.lr}",
        f"--optimizer.betas=[{o.betas[0]},{o.betas[1]}]",
        f"--optimizer.schedule={o.schedule}",
    ]


# --- processes ------------------------------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[1]


def environment() -> dict[str, str]:
    """For a process that must find this checkout, use one thread, and share this session's cache."""
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    return {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def child(work, *args, log: Path, env: dict[str, str] | None = None) -> multiprocessing.process.BaseProcess:
    """Start `work(*args)`, a function of a module, in a process forked from one that has imported everything already.

    What it prints goes to the file `log`; `env` is added to its environment.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tiny", "condgen.cli", "condgen.options", "condgen.training.loop"])
    before = dict(os.environ)
    os.environ.update(environment())
    try:
        forkserver.ensure_running()
    finally:
        os.environ.clear()
        os.environ.update(before)
    cache = {k: v for k, v in os.environ.items() if k.startswith("CONDGEN_")}
    process = context.Process(target=_start, args=(work, args, str(log), {**cache, **(env or {})}), daemon=True)
    process.start()
    return process


def _start(work, args, log: str, env: dict[str, str]) -> None:
    os.environ.update(env)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    torch.set_num_threads(1)
    sys.exit(work(*args))


def ended(process: multiprocessing.process.BaseProcess, seconds: float = 120.0) -> int | None:
    """The exit code, negative for a signal. A process that does not end in time is killed, and the test fails."""
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
        raise AssertionError(f"still running after {seconds} s")
    return process.exitcode


def command(words: list[str]) -> int:
    """`condgen ...`; returns the exit code."""
    from condgen.cli import main

    return main(words)


def train_for(run: Run, out: Path, many: int = 0) -> int:
    """Work for a child: the run, made longer by `many` steps."""
    for _ in steps(replace(run, steps=run.steps + many), out):
        pass
    return 0
