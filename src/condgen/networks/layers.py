"""Layers that more than one net uses."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

SLOPE = 0.2
"""Negative slope of every leaky rectifier here."""


class Maxout(nn.Module):
    """out[u] = the largest of `pieces` affine maps. Goodfellow et al. 2013, arXiv 1302.4389."""

    def __init__(self, n_in: int, n_out: int, pieces: int):
        super().__init__()
        self.linear, self.pieces = nn.Linear(n_in, n_out * pieces), pieces

    def forward(self, x: Float[Tensor, "b n_in"]) -> Float[Tensor, "b n_out"]:
        return self.linear(x).unflatten(1, (-1, self.pieces)).amax(2)


class OneHot(nn.Module):
    """int64 (b,) -> float32 (b, k)."""

    def __init__(self, k: int):
        super().__init__()
        self.k = k

    def forward(self, y: Tensor) -> Float[Tensor, "b k"]:
        return F.one_hot(y, self.k).float()


class ScaleShift(nn.Module):
    """Normalised features, (1 + scale) and shift read from a vector: x * (1 + s(w)) + t(w).

    The statistics are each sample's own (groups of channels), so a sample does not depend on the batch it stands in.
    """

    def __init__(self, channels: int, dim: int, groups: int = 8):
        super().__init__()
        # At least two channels a group: alone in one, a channel would lose the bias of the convolution before it.
        self.norm = nn.GroupNorm(max(1, min(math.gcd(groups, channels), channels // 2)), channels, affine=False)
        self.affine = nn.Linear(dim, 2 * channels)
        nn.init.zeros_(self.affine.bias)

    def forward(self, x: Float[Tensor, "b ch h w"], w: Float[Tensor, "b dim"]) -> Float[Tensor, "b ch h w"]:
        scale, shift = self.affine(w)[:, :, None, None].chunk(2, 1)
        return torch.addcmul(shift, self.norm(x), 1 + scale)


def contrast_normalised(x: Float[Tensor, "b *d"], norm: float) -> Float[Tensor, "b *d"]:
    """Each sample without its mean, at this L2 norm; an even picture becomes 0."""
    flat = x.flatten(1) - x.flatten(1).mean(1, keepdim=True)
    return (norm * flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-8)).view_as(x)


def conv(n_in: int, n_out: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution that keeps (or, with stride 2, halves) the sides, initialised for a leaky rectifier behind it."""
    layer = nn.Conv2d(n_in, n_out, kernel, stride, padding=(kernel - stride + 1) // 2)
    nn.init.kaiming_normal_(layer.weight, a=SLOPE)
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return layer


def linear(n_in: int, n_out: int) -> nn.Linear:
    """A dense layer initialised for a leaky rectifier behind it."""
    layer = nn.Linear(n_in, n_out)
    nn.init.kaiming_normal_(layer.weight, a=SLOPE)
    nn.init.zeros_(layer.bias)
    return layer
