"""From conditions to features: `embed(condition, dim)`, by the condition's kind, and all of a schema side by side."""

from functools import singledispatch

import torch
from jaxtyping import Float
from torch import Tensor, nn

from condgen.conditions import Attributes, Box, Condition, Keypoints, Label, Picture, Schema, Text, Values, Vector
from condgen.networks.layers import SLOPE, OneHot, conv, linear
from condgen.networks.text import ByteGRU


@singledispatch
def embed(condition: Condition, dim: int) -> nn.Module:
    """A net from this condition's values (b, *shape) to features (b, dim). A new kind registers its own."""
    raise TypeError(f"no embedding is registered for conditions of kind {type(condition).__name__}: add one with @embed.register")


@embed.register
def _(condition: Label, dim: int) -> nn.Module:
    return nn.Sequential(OneHot(len(condition.names)), nn.Linear(len(condition.names), dim))


@embed.register
def _(condition: Attributes, dim: int) -> nn.Module:
    return nn.Sequential(Centre(condition.low, condition.high), nn.Linear(len(condition.names), dim))


@embed.register
def _(condition: Vector, dim: int) -> nn.Module:
    return nn.Linear(condition.dim, dim)


@embed.register
def _(condition: Text, dim: int) -> nn.Module:
    return ByteGRU(dim)


@embed.register
def _(condition: Box, dim: int) -> nn.Module:
    return nn.Sequential(Centre((0.0,) * 4, (1.0,) * 4), linear(4, dim), nn.LeakyReLU(SLOPE), nn.Linear(dim, dim))


@embed.register
def _(condition: Keypoints, dim: int) -> nn.Module:
    return nn.Sequential(Visible(), linear(3 * len(condition.names), dim), nn.LeakyReLU(SLOPE), nn.Linear(dim, dim))


@embed.register
def _(condition: Picture, dim: int) -> nn.Module:
    channels, widths = condition.size[0], (16, 32, 64)
    layers: list[nn.Module] = []
    for width in widths:
        layers += [conv(channels, width, 3, stride=2), nn.LeakyReLU(SLOPE)]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * channels, dim))


class Centre(nn.Module):
    """[low, high] -> [-1, 1], for each entry."""

    middle: Tensor
    reach: Tensor

    def __init__(self, low: tuple[float, ...], high: tuple[float, ...]):
        super().__init__()
        lo, hi = torch.tensor(low), torch.tensor(high)
        self.register_buffer("middle", (lo + hi) / 2, persistent=False)
        self.register_buffer("reach", ((hi - lo) / 2).clamp(min=1e-6), persistent=False)

    def forward(self, v: Float[Tensor, "b k"]) -> Float[Tensor, "b k"]:
        return (v - self.middle) / self.reach


class Visible(nn.Module):
    """Key points (b, k, 3) -> (b, 3k), centred; a point that is not visible is all zero, wherever it was noted."""

    def forward(self, points: Float[Tensor, "b k 3"]) -> Float[Tensor, "b k3"]:
        xy, seen = 2 * points[..., :2] - 1, points[..., 2:]
        return torch.cat([xy * seen, seen], 2).flatten(1)


class SchemaEmbedding(nn.Module):
    """Every condition of a schema, embedded and set side by side: values -> (b, out), out = dim x number of conditions."""

    def __init__(self, schema: Schema, dim: int):
        super().__init__()
        self.names, self.out = tuple(schema), dim * len(schema)
        self.each = nn.ModuleList(embed(c, dim) for c in schema.values())

    def forward(self, c: Values, beside: Float[Tensor, "b n"]) -> Float[Tensor, "b m"]:
        """The features joined behind `beside` (b, n): (b, n + out)."""
        return torch.cat([beside, *(net(c[name]).to(beside.dtype) for name, net in zip(self.names, self.each, strict=True))], 1)
