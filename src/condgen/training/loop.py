"""The one training loop. It knows players, never papers.

Every step: gather a batch, seed the noise by (seed, step), let the model take its turns, move each turn's players. Control
goes back to the caller after every step; leaving the `for` saves.
"""

import logging
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor

from condgen import models
from condgen.data.store import Batch, Dataset
from condgen.errors import BadInput
from condgen.model import Model, Run, Samples, Turn
from condgen.training import checkpoint, order
from condgen.training.folder import RunFolder
from condgen.training.health import Balance, Diverged, check_losses, first_bad
from condgen.training.preview import preview
from condgen.training.state import State, begin

log = logging.getLogger("condgen")
ROWS = 1024
"""Rows of real conditions that travel with a model, for what a person leaves open."""


@dataclass(frozen=True)
class Step:
    """One step that was done.

    Args:
        step: counted from 1.
        losses: "player/term" -> mean over the batch (this process's part), as tensors: `.item()` where a number is needed.
        seconds: spent in training since the run's first start.
        images_per_second: over the last steps, over all processes.
        state: all that changes; `state.model` is the model itself.
    """

    step: int
    losses: dict[str, Tensor]
    seconds: float
    images_per_second: float
    state: State


def train(run: Run, model: Model, data: Dataset, out: Path | None = None, fabric: Fabric | None = None) -> Iterator[Step]:
    """Train `model` as `run` says, from its newest whole checkpoint under `out` where there is one.

    Args:
        run: what to do; `run.batch` counts samples over all processes.
        model: as built; its weights are drawn anew from run.seed's generator by `build`, before this.
        data: the training split.
        out: the run's folder; None keeps nothing.
        fabric: by default one that suits the machine, or the `torchrun` that started this process.

    Yields:
        A Step after each step. Leaving the loop early saves a checkpoint first.

    Raises:
        BadInput: for a run that cannot be, or an `out` that holds a different one.
        Diverged: at the first loss that is not finite.
    """
    run = replace(run, precision=precision(run, model))
    fabric = fabric or make_fabric(run)
    fabric.launch()
    if len(data) == 0 or run.batch % fabric.world_size:
        raise BadInput(f"{len(data)} samples, batch {run.batch}, {fabric.world_size} process(es): the batch must be a multiple of the processes")
    state = _ready(run, model, data, fabric)
    folder = RunFolder(out, run, data) if out else None
    if folder and (saved := folder.open(writer=fabric.is_global_zero)):
        state.restore(saved)
        log.info("resumed at step %d of %d", state.step, run.steps)
    state.model.train()
    yield from _steps(run, state, data, fabric, folder)


def _ready(run: Run, model: Model, data: Dataset, fabric: Fabric) -> State:
    model.rows = data.values(order.permutation(len(data), run.seed, 0)[:ROWS]) if model.schema else {}
    model.rows = {k: v for k, v in model.rows.items() if k in model.schema}
    model.start(data.batch(order.permutation(len(data), run.seed, 0)[:10_000]))
    fabric.to_device(model)
    # On every device seen so far convolutions are faster with channels last; values do not change.
    model.to(memory_format=torch.channels_last)
    model.noise.rank, model.noise.world = fabric.global_rank, fabric.world_size
    return begin(model, run)


def _steps(run: Run, state: State, data: Dataset, fabric: Fabric, folder: RunFolder | None) -> Iterator[Step]:
    balance, clock, saved_at = Balance(), Clock(run.batch), state.step
    writes = folder is not None and fabric.is_global_zero
    while state.step < run.steps:
        with clock:
            losses = one_step(run, state, data, fabric)
        state.seconds += clock.last
        done = Step(state.step, losses, state.seconds, clock.images_per_second, state)
        if _due(state.step, run.log_every) or state.step == run.steps:
            measured = {k: float(v) for k, v in losses.items()}
            if (warning := balance.watch(measured)) and fabric.is_global_zero:
                log.warning("%s", warning)
            if writes:
                rate = round(clock.images_per_second, 1)
                folder.measure({"step": state.step, "seconds": round(state.seconds, 3), "images_per_second": rate, **measured})
        if writes and (_due(state.step, run.save_every) or state.step == run.steps):
            save(folder, state, run)
            saved_at = state.step
        if writes and _due(state.step, run.sample_every) and isinstance(state.model, Samples):
            preview(state, data, folder.samples(state.step))
        try:
            yield done
        except GeneratorExit:
            if writes and saved_at != state.step:
                save(folder, state, run)
            raise


def one_step(run: Run, state: State, data: Dataset, fabric: Fabric) -> dict[str, Tensor]:
    """Every turn of one step. Where memory does not suffice, the batch is cut in halves whose gradients add up, and the step is done again."""
    mine = np.split(order.rows(len(data), run.batch, run.seed, state.step), fabric.world_size)[fabric.global_rank]
    batch = data.batch(mine)
    batch = Batch(fabric.to_device(batch.x), {k: fabric.to_device(v) for k, v in batch.c.items()})
    while True:
        # After the batch is fetched: whatever fetching draws must not move the noise.
        seed_noise(run, state, fabric)
        try:
            losses = turns(run, state, batch, fabric)
            break
        except RuntimeError as error:
            if not out_of_memory(error) or 2 * state.micro > len(mine):
                raise
        state.micro *= 2
        _free(state)
        log.warning("out of memory: batches of %d are now cut in %d parts whose gradients add up; the effective batch is unchanged", run.batch, state.micro)
    state.step += 1
    if state.ema:
        state.ema.update(run.batch, state.step * run.batch)
    return losses


def seed_noise(run: Run, state: State, fabric: Fabric) -> None:
    """Randomness is a function of (seed, step), and of the rank for what is drawn outside `model.noise`."""
    torch.manual_seed(_mix(run.seed, state.step, fabric.global_rank))
    state.model.noise.seed(_mix(run.seed, state.step))


def _mix(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def turns(run: Run, state: State, batch: Batch, fabric: Fabric) -> dict[str, Tensor]:
    """The model's algorithm on one batch. Its parts take each turn one after the other, and the players move when all have."""
    state.schedule(run)
    pieces = cut(batch, state.micro)
    parts = [(state.model.turns(piece, state.step), len(piece.x) / len(batch.x)) for piece in pieces]
    losses: dict[str, Tensor] = {}
    while True:
        shares: list[dict[str, Tensor]] = []
        players: list[str] = []
        for i, (part, share) in enumerate(parts):
            with fabric.autocast():
                turn = next(part, None)
            if turn is None:
                return losses
            players = list(turn)
            if i == 0:
                for player in players:
                    state.optimizers[player].zero_grad()
            shares.append(descend(turn, state, fabric, share))
        means = {name: torch.stack([s[name] for s in shares]).sum() for name in shares[0]}
        check_losses(means, state, batch)
        losses |= means
        for player in players:
            average_over_processes(state.own[player], fabric)
            if run.clip is not None:
                torch.nn.utils.clip_grad_norm_(state.own[player], run.clip)
        for player in players:
            state.optimizers[player].step()


def descend(turn: Turn, state: State, fabric: Fabric, share: float) -> dict[str, Tensor]:
    """Each player's gradient of its own loss, in its own parameters; returns the terms' means, times `share`."""
    means = {f"{player}/{term}": share * values.mean() for player, terms in turn.items() for term, values in terms.items()}
    for i, player in enumerate(turn, 1):
        loss = sum(v for name, v in means.items() if name.startswith(f"{player}/"))
        fabric.backward(loss, inputs=state.own[player], retain_graph=i < len(turn))
    return {name: v.detach() for name, v in means.items()}


def cut(batch: Batch, parts: int) -> list[Batch]:
    """The batch in at most `parts` pieces of one size; the last may be smaller."""
    if parts == 1:
        return [batch]
    size = -(-len(batch.x) // parts)
    return [Batch(batch.x[i : i + size], {k: v[i : i + size] for k, v in batch.c.items()}) for i in range(0, len(batch.x), size)]


def average_over_processes(params: list[torch.nn.Parameter], fabric: Fabric) -> None:
    """Gradients become their mean over processes, in one flat message."""
    if fabric.world_size == 1:
        return
    grads = [p.grad for p in params if p.grad is not None]
    flat = fabric.all_reduce(torch.cat([g.flatten() for g in grads]), reduce_op="mean")
    for g, mean in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        g.copy_(mean.view_as(g))


def out_of_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _free(state: State) -> None:
    for p in state.model.parameters():
        p.grad = None
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def save(folder: RunFolder, state: State, run: Run) -> None:
    """A checkpoint of this state. Raises Diverged rather than save what is not finite."""
    if bad := first_bad(state):
        raise Diverged(f"{bad} is not finite after step {state.step}; the last good checkpoint is untouched")
    checkpoint.write(folder.checkpoints, state.step, state.tensors(), state.facts() | {"config": models.config_of(state.model), "run": run.to_json()})


def make_fabric(run: Run) -> Fabric:
    """One process, or as many as `torchrun` started."""
    local, world = (int(os.environ.get(k, "1")) for k in ("LOCAL_WORLD_SIZE", "WORLD_SIZE"))
    chosen: dict[str, Any] = {"strategy": "ddp", "num_nodes": world // local} if world > 1 else {}
    return Fabric(accelerator="auto", devices=local, precision="bf16-mixed" if run.precision == "bf16" else "32-true", **chosen)


def precision(run: Run, model: Model) -> str:
    """ "32" or "bf16"; "auto" is bf16 for convolutional nets on a device that computes it in hardware."""
    if run.precision not in ("auto", "32", "bf16"):
        raise BadInput(f"precision {run.precision!r}: valid are auto, 32, bf16")
    if run.precision != "auto":
        return run.precision
    has_convolutions = any(isinstance(m, torch.nn.Conv2d) for m in model.modules())
    return "bf16" if has_convolutions and fast_bf16() else "32"


def fast_bf16() -> bool:
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and bool(torch.cpu._is_avx512_bf16_supported())


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
