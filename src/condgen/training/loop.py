"""The one training loop. It knows players, never papers.

Every step: gather a batch, seed the noise by (seed, step), let the model take its turns, move each turn's players. Control
goes back to the caller after every step; leaving the `for` saves.
"""

import contextlib
import logging
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from condgen import models
from condgen.data.store import Batch, Dataset
from condgen.errors import BadInput
from condgen.model import Model, Run, Samples, Translates
from condgen.training import checkpoint, order
from condgen.training.checkpoint import Checkpoint
from condgen.training.folder import RunFolder
from condgen.training.health import Balance, Diverged, first_bad
from condgen.training.preview import preview
from condgen.training.processes import any_process, check_agreement, end_to_end, make_fabric
from condgen.training.state import State, begin
from condgen.training.turns import OutOfMemory, out_of_memory, take_turns

log = logging.getLogger("condgen")
ROWS = 1024
"""Rows of real conditions that travel with a model, for what a person leaves open."""
Recent = dict[str, Tensor | float]
"""Each term as it was last computed since the last line of metrics.jsonl. It is saved: a resumed run writes the same lines."""


@dataclass(frozen=True)
class Step:
    """One step that was done.

    Args:
        step: counted from 1. Where memory ran out, steps since the last save come again.
        losses: "player/term" -> mean over the batch, as tensors: `.item()` where a number is needed.
        seconds: spent in training since the run's first start.
        images_per_second: over the last steps, over all processes.
        state: all that changes; `state.model` is the model itself.
    """

    step: int
    losses: dict[str, Tensor]
    seconds: float
    images_per_second: float
    state: State


def train(run: Run, model: Model, data: Dataset, out: Path | None = None, fabric: Fabric | None = None) -> Generator[Step, None, None]:
    """Train `model` as `run` says, from its newest whole checkpoint under `out` where there is one.

    Args:
        run: what to do; `run.batch` counts samples over all processes.
        model: as built; its weights are drawn anew from run.seed's generator by `build`, before this.
        data: the training split.
        out: the run's folder; None keeps nothing.
        fabric: by default one that suits the machine, or the `torchrun` that started this process.

    Yields:
        A Step after each step. Leaving the loop early saves a checkpoint first; where one of several processes leaves, all do.

    Raises:
        BadInput: for a run that cannot be, an `out` that holds a different one or cannot be written, or too little memory.
        Diverged: at the first loss that is not finite.
    """
    run = replace(run, precision=precision(run, model))
    fabric = fabric or make_fabric(run.precision)
    if len(data) == 0 or run.batch % fabric.world_size:
        # Before they meet: a process that leaves right after would take the meeting place of the others with it.
        shares = f"{len(data)} samples, batch {run.batch}, {fabric.world_size} process(es)"
        raise BadInput(f"{shares}: the batch must be a multiple of the processes")
    order.check_evenly(model, data, run.batch, fabric.world_size)
    fabric.launch()
    state = _ready(run, model, data, fabric)
    folder = RunFolder(out, run, data) if out else None
    writes = folder is not None and fabric.is_global_zero
    with folder.held() if folder and writes else contextlib.nullcontext():
        recent: Recent = {}
        if folder and (saved := folder.open(writer=writes)):
            state.restore(saved)
            recent = saved.state.get("recent", {})  # checkpoints of older versions have none
            done = "trained already" if state.step >= run.steps else "resumed"
            log.info("%s: at step %d of %d", done, state.step, run.steps)
        check_agreement(state.step, data.fingerprint if fabric.world_size > 1 else "", fabric)
        state.model.train()
        yield from _steps(run, state, data, fabric, folder if writes else None, recent)


def _ready(run: Run, model: Model, data: Dataset, fabric: Fabric) -> State:
    model.rows = data.values(order.permutation(len(data), run.seed, 0)[:ROWS]) if model.schema else {}
    model.rows = {k: v for k, v in model.rows.items() if k in model.schema}
    model.start(data.batch(order.permutation(len(data), run.seed, 0)[:10_000]))
    fabric.to_device(model)
    # On every device seen so far convolutions are faster with channels last; values do not change.
    if model.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    model.noise.rank, model.noise.world = fabric.global_rank, fabric.world_size
    return begin(model, run)


def _steps(run: Run, state: State, data: Dataset, fabric: Fabric, folder: RunFolder | None, recent: Recent) -> Generator[Step, None, None]:
    """The steps that are left. `folder` is given to the one process that writes."""
    balance, clock, saved = Balance(), Clock(run.batch), snapshot(state, recent)
    while state.step < run.steps:
        losses = step_or_none(run, state, data, fabric, clock)
        if losses is None:
            go_back(run, state, saved, fabric, folder)
            recent = dict(saved.state["recent"])
            continue
        state.seconds += clock.last
        recent |= losses
        if _due(state.step, run.log_every) or state.step == run.steps:
            report(state, recent, clock, balance, fabric, folder)
            recent = {}
        if _due(state.step, run.save_every) or state.step == run.steps:
            saved = save(state, folder, recent)
        if folder and _due(state.step, run.sample_every) and isinstance(state.model, Samples | Translates):
            with folder.writing():
                preview(state, data, folder.samples(state.step))
        leaves = True
        try:
            yield Step(state.step, losses, state.seconds, clock.images_per_second, state)
            leaves = False
        finally:
            leaves = leave(leaves, state, saved, fabric, folder, recent)
        if leaves:
            return


def leave(leaves: bool, state: State, saved: Checkpoint, fabric: Fabric, folder: RunFolder | None, recent: Recent) -> bool:
    """Whether this process or another one leaves the loop, and so must all; what is not saved yet is saved then."""
    try:
        leaves = any_process(leaves, fabric)
    finally:
        if leaves and saved.state["step"] != state.step:
            save(state, folder, recent)
    return leaves


def step_or_none(run: Run, state: State, data: Dataset, fabric: Fabric, clock: "Clock") -> dict[str, Tensor] | None:
    """`one_step`, or None where memory did not suffice. The error is let go here, and with it all that its frames hold."""
    try:
        with clock:
            return one_step(run, state, data, fabric)
    except RuntimeError as error:
        if isinstance(error, OutOfMemory) or (fabric.world_size == 1 and out_of_memory(error)):
            return None
        raise


def one_step(run: Run, state: State, data: Dataset, fabric: Fabric) -> dict[str, Tensor]:
    """Every turn of one step, on this process's part of its batch."""
    mine = np.split(order.rows_for(state.model, data, run.batch, run.seed, state.step), fabric.world_size)[fabric.global_rank]
    batch = data.batch(mine)
    batch = Batch(fabric.to_device(batch.x), {k: fabric.to_device(v) for k, v in batch.c.items()})
    # After the batch is fetched: whatever fetching draws must not move the noise.
    seed_noise(run, state, fabric)
    losses = take_turns(run, state, batch, fabric)
    state.model.after_step(lambda rows: end_to_end(rows, fabric))
    state.step += 1
    if state.ema:
        state.ema.update(run.batch, state.step * run.batch)
    return losses


def seed_noise(run: Run, state: State, fabric: Fabric) -> None:
    """Randomness is a function of (seed, step), and of the rank for what is drawn outside `model.noise`."""
    # The rank counts from 1: SeedSequence pads with zeros, and (seed, step, 0) would be the very numbers of `model.noise`.
    torch.manual_seed(_mix(run.seed, state.step, 1 + fabric.global_rank))
    state.model.noise.generator.manual_seed(_mix(run.seed, state.step))


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def go_back(run: Run, state: State, saved: Checkpoint, fabric: Fabric, folder: RunFolder | None) -> None:
    """Where memory does not suffice: to the last save, and on in parts half as large whose gradients add up.

    Back to the save and not only to the step's beginning: a player that had its turn has moved, and to be able to undo
    that at any step would cost a copy of all weights and moments at every step.

    Raises:
        BadInput: where the parts were single samples already.
    """
    for p in state.model.parameters():
        p.grad = None
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    mine = run.batch // fabric.world_size
    least = order.least(state.model)
    if state.micro >= mine // least:
        remedy = "take smaller pictures (--size), a smaller model, or another device"
        few = "one sample" if least == 1 else f"{least} samples"
        raise BadInput(f"out of memory at step {state.step} with {few} at a time: {remedy}")
    stopped, micro, seconds = state.step, min(2 * state.micro, mine // least), state.seconds
    state.restore(saved)
    state.micro, state.seconds = micro, seconds
    sentence = "out of memory at step %d: batches of %d are now cut in %d parts whose gradients add up; the effective batch is unchanged"
    log.warning(sentence + "; going on from step %d", stopped, mine, micro, state.step)
    if folder:
        folder.cut_metrics(state.step)


def report(state: State, recent: Recent, clock: "Clock", balance: Balance, fabric: Fabric, folder: RunFolder | None) -> None:
    """A line of metrics.jsonl, and a sentence where the players are out of balance.

    A term that is not computed at this very step, such as a lazy R1, stands with its last value since the line before.
    """
    measured = {k: float(v) for k, v in recent.items()}
    if (warning := balance.watch(measured, state.step)) and fabric.is_global_zero:
        log.warning("%s", warning)
    if folder:
        rate = round(clock.images_per_second, 1)
        folder.measure({"step": state.step, "seconds": round(state.seconds, 3), "images_per_second": rate, **measured})


def snapshot(state: State, recent: Recent) -> Checkpoint:
    """The state in the host's memory, in the form of a checkpoint."""
    tensors = {name: {k: v.detach().to("cpu", copy=True) for k, v in group.items()} for name, group in state.tensors().items()}
    return Checkpoint(Path("memory"), tensors, state.facts() | {"recent": {k: float(v) for k, v in recent.items()}})


def save(state: State, folder: RunFolder | None, recent: Recent) -> Checkpoint:
    """A snapshot of this state, written where there is a folder. Raises Diverged rather than save what is not finite."""
    if bad := first_bad(state):
        raise Diverged(f"{bad} is not finite after step {state.step}; the last good checkpoint is untouched")
    saved = snapshot(state, recent)
    if folder:
        facts = saved.state | {"config": models.config_of(state.model)} | folder.identity
        checkpoint.write(folder.checkpoints, state.step, saved.tensors, facts)
    return saved


def precision(run: Run, model: Model) -> str:
    """ "32" or "bf16"; "auto" is bf16 for convolutional nets on a device that computes it in hardware."""
    if run.precision not in ("auto", "32", "bf16"):
        raise BadInput(f"precision {run.precision!r}: valid are auto, 32, bf16")
    if run.precision != "auto":
        return run.precision
    has_convolutions = any(p.dim() == 4 for p in model.parameters())  # by their kernels, whatever class holds them
    return "bf16" if has_convolutions and fast_bf16() else "32"


def fast_bf16() -> bool:
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)())


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


class Clock:
    """Times a `with` block; the rate is over the last 20."""

    def __init__(self, batch: int):
        self.batch, self.last = batch, 0.0
        self.times: list[float] = []

    def __enter__(self) -> None:
        self.began = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.last = time.perf_counter() - self.began
        self.times = [*self.times[-19:], self.last]

    @property
    def images_per_second(self) -> float:
        return self.batch * len(self.times) / sum(self.times)
