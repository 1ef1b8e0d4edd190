"""One step of a model's algorithm: its turns, and each turn's players moved in their own parameters."""

from collections.abc import Iterator

import torch
from lightning_fabric import Fabric
from torch import Tensor

from condgen.data.store import Batch
from condgen.model import Run, Turn
from condgen.training.health import check_losses
from condgen.training.order import least
from condgen.training.processes import any_process, average
from condgen.training.state import State

Part = tuple[Iterator[Turn], float]
"""The turns of a part of the batch, and its share of the batch."""


class OutOfMemory(RuntimeError):
    """Memory did not suffice for a step, on this process or another. Some players may have moved already."""


def take_turns(run: Run, state: State, batch: Batch, fabric: Fabric) -> dict[str, Tensor]:
    """The model's algorithm on one batch; returns each term's mean over all processes, by "player/term".

    Raises:
        Diverged: at the first loss that is not finite, before its players move.
        OutOfMemory: on every process, where it happened on one.
    """
    state.schedule(run)
    parts = [(state.model.turns(piece, state.step), len(piece.x) / len(batch.x)) for piece in cut(batch, state.micro, least(state.model))]
    losses: dict[str, Tensor] = {}
    while (means := turn_gradients(parts, state, fabric)) is not None:
        players = list(dict.fromkeys(name.split("/")[0] for name in means))
        # The losses travel with the gradients: what is not finite on one process stops all of them, at the same place.
        average([p.grad for player in players for p in state.own[player] if p.grad is not None] + list(means.values()), fabric)
        check_losses(means, state, batch)
        losses |= means
        for player in players:
            if run.clip is not None:
                torch.nn.utils.clip_grad_norm_(state.own[player], run.clip)
        for player in players:
            state.optimizers[player].step()
    return losses


def turn_gradients(parts: list[Part], state: State, fabric: Fabric) -> dict[str, Tensor] | None:
    """`gradients` of the next turn; where memory runs out on one process, all of them hear of it and raise OutOfMemory."""
    means, short = None, False
    try:
        means = gradients(parts, state, fabric)
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        short = True  # and the error is let go here, with all that its frames hold
    if any_process(short, fabric):
        raise OutOfMemory(f"at step {state.step}")
    return means


def gradients(parts: list[Part], state: State, fabric: Fabric) -> dict[str, Tensor] | None:
    """The next turn of every part, one after the other: gradients add up in the players, terms in what is returned.

    None after the last turn.
    """
    means: dict[str, Tensor] = {}
    for i, (part, share) in enumerate(parts):
        with fabric.autocast():
            turn = next(part, None)
        if turn is None:
            return None
        if i == 0:
            for player in turn:
                state.optimizers[player].zero_grad()
        for name, value in descend(turn, state, fabric, share).items():
            means[name] = means[name] + value if name in means else value
    return means


def descend(turn: Turn, state: State, fabric: Fabric, share: float) -> dict[str, Tensor]:
    """Adds each player's gradient of its own loss, in its own parameters; returns the terms' means, times `share`.

    Players that are given one and the same terms move together: one pass backwards serves all of them.
    """
    means = {f"{player}/{term}": share * values.mean() for player, terms in turn.items() for term, values in terms.items()}
    together: dict[int, list[str]] = {}
    for player, terms in turn.items():
        together.setdefault(id(terms), []).append(player)
    for i, players in enumerate(together.values(), 1):
        loss = torch.stack([v for name, v in means.items() if name.startswith(f"{players[0]}/")]).sum()
        fabric.backward(loss, inputs=[p for player in players for p in state.own[player]], retain_graph=i < len(together))
    return {name: v.detach() for name, v in means.items()}


def cut(batch: Batch, parts: int, least: int = 1) -> list[Batch]:
    """The batch in at most `parts` pieces of one size, a multiple of `least`; the last may be smaller."""
    if parts == 1:
        return [batch]
    size = -(-len(batch.x) // (parts * least)) * least
    return [Batch(batch.x[i : i + size], {k: v[i : i + size] for k, v in batch.c.items()}) for i in range(0, len(batch.x), size)]


def out_of_memory(error: BaseException) -> bool:
    """Also what the CPU's allocator and the matrix library say, which have no error class of their own."""
    said = ("can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError | OutOfMemory) or any(s in str(error) for s in said)
