"""All that changes during a run, in one object: saving and loading it is the whole of resuming."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from condgen.errors import BadInput, unknown
from condgen.model import Model, Optimizer, Run
from condgen.training.checkpoint import Checkpoint
from condgen.training.ema import EMA
from condgen.training.schedules import at

KINDS: dict[str, type[torch.optim.Optimizer]] = {"Adam": torch.optim.Adam, "AdamW": torch.optim.AdamW, "SGD": torch.optim.SGD}


@dataclass
class State:
    """Args:
    model: with the model's own buffers.
    optimizers: one for each player.
    ema: the averaged weights, or None.
    step: steps done.
    micro: parts a batch is cut into, to fit in memory.
    seconds: time spent in training so far.
    """

    model: Model
    optimizers: dict[str, torch.optim.Optimizer]
    ema: EMA | None
    step: int = 0
    micro: int = 1
    seconds: float = 0.0
    own: dict[str, list[nn.Parameter]] = field(init=False)

    def __post_init__(self) -> None:
        self.own = {player: parameters(nets) for player, nets in self.model.players().items()}

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Everything bitwise, by file of a checkpoint."""
        groups = {"model": self.model.state_dict(), "optimizers": self._optimizer_tensors(), "rows": self.model.rows}
        return groups | ({"ema": self.ema.tensors} if self.ema else {})

    def facts(self) -> dict[str, Any]:
        return {"step": self.step, "micro": self.micro, "seconds": self.seconds}

    def _optimizer_tensors(self) -> dict[str, Tensor]:
        return {
            f"{player}.{i}.{key}": value
            for player, optimizer in self.optimizers.items()
            for i, p in enumerate(self.own[player])
            for key, value in optimizer.state.get(p, {}).items()
            if isinstance(value, Tensor)
        }

    def restore(self, saved: Checkpoint) -> None:
        """Become the state that was saved. Raises BadInput where its tensors are not this model's."""
        try:
            self.model.load_state_dict(saved.tensors["model"])
            if self.ema:
                for k, v in self.ema.tensors.items():
                    v.copy_(saved.tensors["ema"][k])
            self._restore_optimizers(saved.tensors["optimizers"])
            self.model.rows = saved.tensors["rows"]
            self.step, self.micro, self.seconds = (saved.state[k] for k in ("step", "micro", "seconds"))
        except (RuntimeError, KeyError, IndexError, ValueError) as error:
            raise BadInput(f"checkpoint {saved.folder.name} does not fit this model: {error}") from None

    def _restore_optimizers(self, tensors: dict[str, Tensor]) -> None:
        for optimizer in self.optimizers.values():
            optimizer.state.clear()
        for name, value in tensors.items():
            player, i, key = name.rsplit(".", 2)
            p = self.own[player][int(i)]
            # Moments take their weight's memory layout, as if they had never been away; a step count is a number. Always a copy:
            # the optimiser will write into it, and what was saved must stay.
            kept = torch.empty_like(p) if value.shape == p.shape else torch.empty_like(value, device=p.device)
            self.optimizers[player].state[p][key] = kept.detach().copy_(value)

    def schedule(self, run: Run) -> None:
        """Set each optimiser to the learning rate and momentum of this step."""
        for player, optimizer in self.optimizers.items():
            lr, momentum = at(self.step, run.steps, run.optimizer(player))
            for group in optimizer.param_groups:
                group["lr"] = lr
                if "momentum" in group:
                    group["momentum"] = momentum


def begin(model: Model, run: Run) -> State:
    """The state before the first step."""
    players = model.players()
    for name in run.optimizers.keys() - players.keys() - {"*"}:
        raise unknown("player", name, players)
    missing = [p for p in players if p not in run.optimizers and "*" not in run.optimizers]
    if missing:
        raise BadInput(f"no optimiser for player {missing[0]!r}: the run names {', '.join(run.optimizers)}")
    optimizers = {player: make(run.optimizer(player), parameters(nets)) for player, nets in players.items()}
    return State(model, optimizers, EMA(model, run.half_life_images) if run.half_life_images else None)


def make(o: Optimizer, params: list[nn.Parameter]) -> torch.optim.Optimizer:
    """The PyTorch optimiser of a description. Raises BadInput for a kind that does not exist."""
    if o.kind not in KINDS:
        raise unknown("optimizer", o.kind, KINDS)
    if o.kind == "SGD":
        return torch.optim.SGD(params, lr=o.lr, momentum=o.momentum, weight_decay=o.weight_decay)
    return KINDS[o.kind](params, lr=o.lr, betas=o.betas, weight_decay=o.weight_decay, fused=True)  # type: ignore[call-arg]


def parameters(nets: list[nn.Module]) -> list[nn.Parameter]:
    return [p for net in nets for p in net.parameters()]
