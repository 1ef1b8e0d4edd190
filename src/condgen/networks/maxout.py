"""The convolutional nets of the first GANs' code: a generator of one transposed convolution, a discriminator of maxout convolutions.

Goodfellow et al. 2014 (`adversarial`, CIFAR-10), taken over by Gauthier 2014 for faces of 32 px.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from condgen.conditions import Values
from condgen.errors import BadInput, require_positive
from condgen.networks.layers import Maxout


class Deconvolution(nn.Module):
    """(b, n) -> dense, rectified -> dense -> maps -> one transposed convolution, 5x5 with stride 3, with a bias for each pixel.

    Maps of side s make 3 s + 2 px: 10 for 32 px. Where no s fits, the next larger picture is cut at its lower and right edge.
    """

    def __init__(self, n_in: int, hidden: int, channels: int, shape: tuple[int, ...], sigmoid: bool, bounded: bool):
        super().__init__()
        self.side, self.shape, self.sigmoid, self.bounded = tuple(math.ceil((s - 2) / 3) for s in shape[1:]), shape, sigmoid, bounded
        if min(self.side) < 1:
            raise BadInput(f"a transposed convolution of stride 3 makes pictures of at least 3 px, not {shape[2]}x{shape[1]}")
        self.first = nn.Linear(n_in, hidden)
        self.second = nn.Linear(hidden, channels * math.prod(self.side))
        self.picture = nn.ConvTranspose2d(channels, shape[0], 5, stride=3, bias=False)
        self.bias = nn.Parameter(torch.zeros(shape))

    def forward(self, w: Float[Tensor, "b n"], c: Values) -> Float[Tensor, "b ch h w"]:
        h = self.second(torch.relu(self.first(w)))
        h = (torch.sigmoid(h) if self.sigmoid else torch.relu(h)).unflatten(1, (-1, *self.side))
        x = self.picture(h)[:, :, : self.shape[1], : self.shape[2]].float() + self.bias
        return torch.tanh(x) if self.bounded else x


class MaxoutConv(nn.Module):
    """Dropout, then the larger of two convolutions, then the largest of each window; a window may reach over the edge."""

    def __init__(self, n_in: int, filters: int, kernel: int, pad: int, pool: int, dropout: float):
        super().__init__()
        self.conv, self.dropout = nn.Conv2d(n_in, 2 * filters, kernel, padding=pad), nn.Dropout(dropout)
        self.pool = nn.MaxPool2d(pool, 2, ceil_mode=True)

    def forward(self, x: Float[Tensor, "b ch h w"]) -> Float[Tensor, "b f h2 w2"]:
        return self.pool(self.conv(self.dropout(x)).unflatten(1, (-1, 2)).amax(2))


class MaxoutCode(nn.Module):
    """Picture -> (b, dense): at 32 px the convolutions leave 16, 7 and 5 px a side (table 1 of the paper, with the code's padding)."""

    def __init__(self, shape: tuple[int, ...], filters: tuple[int, ...], dense: int, dropout: tuple[float, float]):
        super().__init__()
        plan = [(8, 4, 4), (8, 3, 4), (5, 3, 2)]
        require_positive(filters=filters)
        if len(filters) != len(plan):
            raise BadInput(f"filters is {filters!r}; expected {len(plan)} numbers, one for each convolution")
        widths = [shape[0], *filters]
        self.convs = nn.ModuleList(
            MaxoutConv(a, b, kernel, pad, pool, dropout[i > 0])
            for i, (a, b, (kernel, pad, pool)) in enumerate(zip(widths, widths[1:], plan, strict=False))
        )
        h, w = shape[1:]
        for kernel, pad, pool in plan:
            h, w = (math.ceil((s + 2 * pad - kernel + 1 - pool) / 2) + 1 for s in (h, w))
            if min(h, w) < 1:
                raise BadInput(f"maxout convolutions need pictures of at least 8 px, not {shape[2]}x{shape[1]}")
        self.dropout, self.dense = nn.Dropout(dropout[1]), Maxout(filters[-1] * h * w, dense, 5)

    def forward(self, x: Float[Tensor, "b ch h w"], c: Values) -> Float[Tensor, "b dense"]:
        for layer in self.convs:
            x = layer(x)
        return self.dense(self.dropout(x.flatten(1)))
