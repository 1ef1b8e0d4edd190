"""Watching a run: what is not finite stops it with a name; what goes wrong slowly is said in words, with what to try."""

import logging
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from condgen.data.store import Batch
from condgen.training.state import State

log = logging.getLogger("condgen")


class Diverged(RuntimeError):
    """A value that is not finite. The last good checkpoint is untouched."""


def check_losses(losses: Mapping[str, Tensor], state: State, batch: Batch) -> None:
    """Raises Diverged naming the term, and the first tensor that is not finite where it came from."""
    if bool(torch.isfinite(torch.stack(list(losses.values()))).all()):  # one question to the device, however many terms
        return
    name, value = next((k, v) for k, v in losses.items() if not bool(torch.isfinite(v)))
    source = first_bad(state, batch)
    where = f"not finite: {source}" if source else "all weights and data are finite"
    raise Diverged(f"{name} is {value.item()} at step {state.step}; {where}")


def first_bad(state: State, batch: Batch | None = None) -> str | None:
    """The name of the first tensor with a value that is not finite, looked for in the data, the weights, their gradients and the rest."""
    for name, tensor in _tensors(state, batch):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return name
    return None


def _tensors(state: State, batch: Batch | None) -> Iterator[tuple[str, Tensor]]:
    if batch is not None:
        yield "sample x of the batch", batch.x
        yield from ((f"condition {k} of the batch", v) for k, v in batch.c.items())
    yield from ((f"weight {k}", v) for k, v in state.model.state_dict().items())
    yield from ((f"gradient of {k}", p.grad) for k, p in state.model.named_parameters() if p.grad is not None)
    yield from ((f"{group} {k}", v) for group, tensors in state.tensors().items() if group != "model" for k, v in tensors.items())


class Balance:
    """Smooths each player's game loss and says when one player has left the other behind.

    The bounds are for cross-entropy games, where ln 2 = 0.69 a term is an even game; other games are not judged.
    """

    PATIENCE = 500  # steps below a bound before anything is said; a game often swings early
    SMOOTHING = 0.98  # what remains of a mean after one step

    def __init__(self) -> None:
        self.mean: dict[str, float] = {}
        self.step = self.below = 0
        self.lost = self.said = False

    def watch(self, losses: Mapping[str, float], step: int) -> str | None:
        """A sentence when something is wrong for the first time, else None. Time is counted in steps, however rarely one looks."""
        passed = max(0, step - self.step)  # below 0 where memory ran out and the run went back
        kept = self.SMOOTHING**passed
        for name, value in losses.items():
            self.mean[name] = kept * self.mean.get(name, value) + (1 - kept) * value
        before, self.step = self.lost, step
        self.lost = self.mean.get("D/game", 1.0) < 0.05 and self.mean.get("G/game", 0.0) > 3
        self.below = self.below + passed if before and self.lost else 0
        if self.below < self.PATIENCE or self.said:
            return None
        self.said = True
        return (
            f"D tells every fake (its loss is {self.mean['D/game']:.3f}, G's {self.mean['G/game']:.1f}): G learns little from such a D. "
            "Try a larger r1, a smaller learning rate for D, or another game."
        )


def sameness(fakes: Tensor, real: Tensor, groups: list[str]) -> str | None:
    """A sentence if the samples of one condition are nearly the same picture; groups name each sample's condition."""
    spread = _spread(real.flatten(1))
    for group in dict.fromkeys(groups):
        same = fakes[[i for i, g in enumerate(groups) if g == group]].flatten(1)
        if len(same) > 1 and _spread(same) < 0.1 * spread:
            return (
                f"samples of {group} are nearly identical ({_spread(same) / spread:.0%} of the distance between real samples): "
                "the generator may be collapsing. Try r1, a smaller learning rate, or the relativistic game with r1 and r2."
            )
    return None


def log_sameness(fakes: Tensor, real: Tensor, groups: list[str]) -> None:
    """`sameness` as a logged warning."""
    if sentence := sameness(fakes.cpu(), real.cpu(), groups):
        log.warning("%s", sentence)


def _spread(x: Tensor) -> float:
    n = len(x)
    return float(torch.pdist(x.float()).mean()) if n > 1 else 0.0
