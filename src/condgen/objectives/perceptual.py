"""What two pictures have in common in the eyes of a feature net: contents place by place, styles as statistics over all places.

    G = F F^T / (h w)        F: activations of one layer, one row a channel            Gatys, Ecker, Bethge 2016

Without the division Gatys' and the released codes' numbers differ from these by constants; `editing.transfer` has them all.
"""

import torch
from jaxtyping import Float
from torch import Tensor

FLOOR = 1e-12
"""Below this a squared norm counts as none."""


def gram(f: Float[Tensor, "b ch h w"]) -> Float[Tensor, "b ch ch"]:
    """Mean product of each two channels over all places."""
    rows = f.flatten(2)
    return rows @ rows.transpose(1, 2) / rows.shape[2]


def masked_gram(f: Float[Tensor, "b ch h w"], m: Float[Tensor, "m 1 h w"]) -> Float[Tensor, "b ch ch"]:
    """The same of activations times m in [0, 1], over all places: of few, the products are few. Luan et al. 2017, section 3.2."""
    return gram(f * m)


def relative(a: Float[Tensor, "b ..."], b: Float[Tensor, "b ..."]) -> Float[Tensor, " b"]:
    """|a - b|^2 / |b|^2: 0 where equal, 1 where a is nothing."""
    return (a - b).square().flatten(1).sum(1) / b.square().flatten(1).sum(1).clamp(min=FLOOR)


def total_variation(x: Float[Tensor, "b c h w"]) -> Float[Tensor, " b"]:
    """Mean squared step to the right-hand and to the lower neighbour, added."""
    right, down = x[..., 1:] - x[..., :-1], x[..., 1:, :] - x[..., :-1, :]
    return right.square().flatten(1).mean(1) + down.square().flatten(1).mean(1)


def mean_squared(a: Float[Tensor, "b ..."], b: Float[Tensor, "b ..."]) -> Float[Tensor, " b"]:
    """Mean over all entries of (a - b)^2."""
    return (a - b).square().flatten(1).mean(1)


def blended(parts: list[Tensor], shares: list[float]) -> Tensor:
    """Statistics of several styles as one: their mean with these shares."""
    return torch.stack([share * part for share, part in zip(shares, parts, strict=True)]).sum(0)
