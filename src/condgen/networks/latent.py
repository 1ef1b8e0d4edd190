"""Nets on latents: a dense trunk that reads conditions beside the latent, an actor whose every number is gated, a namer of attributes."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from condgen.conditions import Attributes, Label, Schema, Values
from condgen.networks.mlp import MLP
from condgen.objectives.latent import Objective

DEPTH = 4
"""Hidden layers of every trunk, as the paper's."""
WITHIN = 0.05
"""An attribute is reached when its estimate, on the scale from 0 to 1, is at most so far from what is asked, or beyond it."""


def trunk(z_dim: int, schema: Schema, out: int, width: int) -> MLP:
    """z (b, z_dim) and the conditions, each embedded linearly to `width` features -> four rectified layers -> (b, out).

    Where it reads conditions it is initialised for rectifiers: as PyTorch does it, what they say is a thirtieth of itself behind four
    layers, and the game starts slowly. A critic of z alone is left smooth: sharper ones are easier to deceive by a descent.
    """
    net = MLP(z_dim, (width,) * DEPTH, (out,), schema, embed_dim=width)
    for layer in net.layers:
        if schema and isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return net


class Actor(nn.Module):
    """z' = (1 - g) z + g dz, where dz and the gate g = sigmoid(.) are read off z and the conditions. Engel et al. 2017, section 3."""

    def __init__(self, z_dim: int, schema: Schema, width: int):
        super().__init__()
        self.trunk = trunk(z_dim, schema, 2 * z_dim, width)

    def forward(self, z: Float[Tensor, "b d"], c: Values) -> Float[Tensor, "b d"]:
        dz, gate = self.trunk(z, c).float().chunk(2, 1)
        g = torch.sigmoid(gate)
        return (1 - g) * z + g * dz


class Namer(nn.Module):
    """Names labels and attributes of a latent: logits, side by side. It reads no conditions.

    Args:
        z_dim: length of the latent.
        schema: Labels and Attributes; attributes are estimated on [0, 1], from their lowest to their highest value.
        width: of the hidden layers.
    """

    def __init__(self, z_dim: int, schema: Schema, width: int):
        super().__init__()
        self.schema = {name: c for name, c in schema.items() if isinstance(c, Label | Attributes)}
        self.sizes = {name: len(c.names) for name, c in self.schema.items()}
        self.trunk = trunk(z_dim, {}, sum(self.sizes.values()), width)

    def forward(self, z: Float[Tensor, "b d"]) -> Float[Tensor, "b k"]:
        return self.trunk(z, {}).float()

    def parts(self, logits: Float[Tensor, "b k"]) -> dict[str, Tensor]:
        """The logits of each condition, (b, names)."""
        return dict(zip(self.sizes, logits.split(list(self.sizes.values()), 1), strict=True))

    def loss(self, logits: Float[Tensor, "b k"], c: Values) -> Float[Tensor, " b"]:
        """-log P(c | z), (b,): cross-entropy of labels and of each attribute, added up; what is NaN is not asked."""
        losses = []
        for name, part in self.parts(logits).items():
            condition = self.schema[name]
            if isinstance(condition, Label):
                losses.append(F.cross_entropy(part, c[name], reduction="none"))
            elif isinstance(condition, Attributes):
                target = unit(condition, c[name])
                each = F.binary_cross_entropy_with_logits(part, target.nan_to_num(0.5), reduction="none")
                losses.append(torch.where(target.isnan(), 0.0, each).sum(1))
        return torch.stack(losses).sum(0)

    def shows(self, logits: Float[Tensor, "b k"], c: Values) -> Bool[Tensor, " b"]:
        """Where the latent shows what is asked already: the likeliest label, and attributes on the asked side of their middle."""
        found = [_of(p, t) == p.amax(1) if p.shape != t.shape else _same_side(p, t) for p, t in self._asked(logits, c)]
        return torch.stack(found).all(0)

    def reached(self, logits: Float[Tensor, "b k"], c: Values, least: float) -> Bool[Tensor, " b"]:
        """Where an edit has arrived: labels at a probability of at least `least`, attributes within `WITHIN` of what is asked or beyond."""
        found = [_of(p, t) >= least if p.shape != t.shape else _beyond(p, t) for p, t in self._asked(logits, c)]
        return torch.stack(found).all(0)

    def _asked(self, logits: Tensor, c: Values) -> Iterator[tuple[Tensor, Tensor]]:
        """Of each condition the probabilities (b, names), and what is asked: an index (b,), or numbers from 0 to 1 (b, names)."""
        for name, part in self.parts(logits).items():
            condition = self.schema[name]
            if isinstance(condition, Attributes):
                yield torch.sigmoid(part), unit(condition, c[name])
            else:
                yield part.softmax(1), c[name]

    def filled(self, logits: Float[Tensor, "b k"], c: Values) -> Values:
        """The conditions with what is not asked (NaN) set to what the latent shows."""
        whole = dict(c)
        for name, part in self.parts(logits).items():
            condition = self.schema[name]
            if isinstance(condition, Attributes):
                low, high = (c[name].new_tensor(v) for v in (condition.low, condition.high))
                whole[name] = torch.where(c[name].isnan(), low + (high - low) * torch.sigmoid(part).detach(), c[name])
        return whole


def towards(
    namer: Namer,
    asked: Values,
    realism: Callable[[Tensor, Tensor], Tensor] | None = None,
    name: Callable[[Tensor], Tensor] | None = None,
    weight: float = 0.1,
    least: tuple[float, float] = (0.99, 0.3),
) -> Objective:
    """What `descend` needs to edit latents until they show what is asked: -log P(asked | z) + weight * -log D(z).

    Args:
        namer: of the attributes.
        asked: a row a latent; attributes that are NaN are not asked.
        realism: (latents, their rows) -> logits of D, (m,); None for no such term.
        name: latents -> the namer's logits, where it reads them otherwise than as they are.
        weight: of the realism.
        least: thresholds on the probability of a label and on D: both must be passed.
    """

    def objective(z: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        wanted, logits = {key: v[rows] for key, v in asked.items()}, (name or namer)(z)
        loss, arrived = namer.loss(logits, wanted), namer.reached(logits, wanted, least[0])
        if realism is None:
            return loss, arrived
        real = realism(z, rows)
        return loss + weight * F.softplus(-real), arrived & (torch.sigmoid(real) >= least[1])

    return objective


def unit(condition: Attributes, values: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
    """Attributes on the scale from 0 (their lowest value) to 1 (their highest); NaN stays."""
    low, high = (values.new_tensor(v) for v in (condition.low, condition.high))
    return ((values - low) / (high - low).clamp(min=1e-6)).clamp(0, 1)


def _of(p: Tensor, label: Tensor) -> Tensor:
    return p.gather(1, label[:, None])[:, 0]


def _same_side(p: Tensor, asked: Tensor) -> Tensor:
    return (asked.isnan() | ((p >= 0.5) == (asked >= 0.5))).all(1)


def _beyond(p: Tensor, asked: Tensor) -> Tensor:
    past = torch.where(asked >= 0.5, p >= asked - WITHIN, p <= asked + WITHIN)
    return (asked.isnan() | past).all(1)
