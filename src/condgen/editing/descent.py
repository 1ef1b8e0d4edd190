"""Descent of a picture's own pixels: no net is trained, the picture is what moves.

Every step evaluates the energy once. L-BFGS takes no line search and never sees a clamp, either of which would spoil its curvature
pairs; the caller clips the last picture to its range. All that changes is in `state`, so that a stopped descent goes on as if it never
had been.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from condgen.errors import BadInput, require_positive, require_whole, unknown

Energy = Callable[[Tensor], dict[str, Tensor]]
RATES = {"lbfgs": 1.0, "adam": 0.02}
"""Default learning rates, on the scale of [-1, 1]."""
LISTS = ("old_dirs", "old_stps", "ro")
"""What PyTorch's L-BFGS remembers as lists of tensors, oldest first."""
NUMBERS = ("func_evals", "n_iter")


@dataclass(frozen=True)
class Moment:
    """One evaluation.

    Args:
        step: how many were made, from 1.
        x: the picture that comes out of it, detached, not clipped.
        total: the energy of the picture that went in.
        terms: its parts.
    """

    step: int
    x: Tensor
    total: float
    terms: dict[str, float]


class Descent:
    """An iterator of moments.

    Args:
        x: where it starts; not changed.
        energy: named terms of the picture, each (), whose sum is descended.
        steps: evaluations in all.
        optimizer: "lbfgs" or "adam".
        lr: the learning rate; None for the optimiser's default here.
        history: pairs that L-BFGS remembers; each takes the memory of two pictures.
    """

    def __init__(self, x: Tensor, energy: Energy, steps: int, optimizer: str = "lbfgs", lr: float | None = None, history: int = 20):
        if optimizer not in RATES:
            raise unknown("optimizer", optimizer, RATES)
        require_whole("steps", steps, 0)
        require_whole("history", history, 1)
        require_positive(lr=RATES[optimizer] if lr is None else lr)
        self.energy, self.steps, self.history = energy, steps, history
        # Contiguous: L-BFGS reads its gradient with `view`.
        self.x = x.detach().clone().contiguous()
        self.best, self.least = self.x.clone(), float("inf")
        self.step = 0
        self._use(optimizer, RATES[optimizer] if lr is None else lr)

    def _use(self, kind: str, lr: float) -> None:
        self.kind, self.rate = kind, lr
        self.x.requires_grad_()
        if kind == "adam":
            self.optimizer: torch.optim.Optimizer = torch.optim.Adam([self.x], lr=lr)
        else:  # tolerances of 0: it is the caller who ends the descent
            self.optimizer = torch.optim.LBFGS(
                [self.x], lr=lr, max_iter=1, max_eval=1, history_size=self.history, tolerance_grad=0.0, tolerance_change=0.0
            )

    def __iter__(self) -> Iterator[Moment]:
        while self.step < self.steps:
            yield self.advance()

    def advance(self) -> Moment:
        """One evaluation and the step that follows from it. Raises BadInput where the energy is not finite at the start already."""
        terms: dict[str, Tensor] = {}

        def closure() -> Tensor:
            nonlocal terms
            self.optimizer.zero_grad()
            terms = self.energy(self.x)
            total = torch.stack([t.reshape(()) for t in terms.values()]).sum()
            total.backward()
            return total

        before = self.x.detach().clone()
        total = float(self.optimizer.step(closure).detach())  # type: ignore[arg-type, attr-defined]
        self.step += 1
        told = {name: float(t.detach()) for name, t in terms.items()}
        if not _finite(total, self.x):
            self._restart(told)
        elif total < self.least:
            self.best, self.least = before, total
        return Moment(self.step, self.x.detach().clone(), total, told)

    def _restart(self, terms: dict[str, float]) -> None:
        """L-BFGS now and then takes a step too far; Adam goes on from the best picture so far."""
        if self.least == float("inf"):
            raise BadInput(f"the energy is not finite where the descent starts: {terms}")
        self.x = self.best.clone()
        self._use("adam", RATES["adam"])

    # --- resuming ---

    def state(self) -> dict[str, Tensor]:
        """All that the next steps depend on, in plain tensors."""
        kept: dict[str, Tensor] = {
            "x": self.x.detach().clone(),
            "best": self.best.clone(),
            "least": torch.tensor(self.least, dtype=torch.float64),
            "step": torch.tensor(self.step),
            "kind": torch.tensor(list(RATES).index(self.kind)),
            "rate": torch.tensor(self.rate, dtype=torch.float64),
        }
        # A copy of each: L-BFGS keeps views of one memory, which safetensors refuses.
        return kept | {f"optimizer.{k}": v.clone() for k, v in _flattened(self.optimizer.state.get(self.x, {})).items()}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from `state()`. Raises BadInput where it is of another picture."""
        try:
            if state["x"].shape != self.x.shape:
                raise BadInput(f"the state is of a picture {tuple(state['x'].shape)}; this one is {tuple(self.x.shape)}")
            self.x, self.best = state["x"].clone(), state["best"].clone()
            self.least, self.step = float(state["least"]), int(state["step"])
            kind, rate = list(RATES)[int(state["kind"])], float(state["rate"])
        except (KeyError, IndexError) as error:
            raise BadInput(f"the state is damaged: it has no {error}") from None
        self._use(kind, rate)
        own = {k.removeprefix("optimizer."): v.clone() for k, v in state.items() if k.startswith("optimizer.")}
        if own:
            self.optimizer.state[self.x] = _unflattened(own)


def _finite(total: float, x: Tensor) -> bool:
    return total == total and abs(total) < float("inf") and bool(torch.isfinite(x).all())


def _flattened(state: dict[str, Any]) -> dict[str, Tensor]:
    flat: dict[str, Tensor] = {}
    for name, value in state.items():
        if name in LISTS:
            flat |= {f"{name}.{i}": v for i, v in enumerate(value)}
        elif isinstance(value, Tensor):
            flat[name] = value
        elif isinstance(value, int | float):
            flat[name] = torch.tensor(value, dtype=torch.float64)
    return flat


def _unflattened(flat: dict[str, Tensor]) -> dict[str, Any]:
    lists: dict[str, Any] = {name: [] for name in LISTS}
    for name in sorted((n for n in flat if n.split(".")[0] in LISTS), key=lambda n: int(n.split(".")[1])):
        lists[name.split(".")[0]].append(flat[name])
    plain: dict[str, Any] = {name: value for name, value in flat.items() if name.split(".")[0] not in LISTS}
    if "n_iter" not in plain:  # Adam's, whose count of steps lies on the CPU wherever the picture is
        return plain | {"step": plain["step"].cpu()}
    return plain | lists | {name: int(plain[name]) for name in NUMBERS} | {"prev_loss": float(plain["prev_loss"])}
