"""Layers with an equalised learning rate: weights of unit variance, scaled where they are used.

    y = (gain lr_mul / sqrt(fan_in)) W x + lr_mul b,        W ~ N(0, 1 / lr_mul^2)

Karras et al. 2018, "Progressive Growing of GANs", arXiv 1710.10196, section 4.1. Adam moves every weight by about its learning rate,
whatever the scale of the weight; so the dynamic range, and with it the speed of learning, is the same for all of them. `lr_mul` slows a
net down by that factor: StyleGAN's mapping has .01, ALAE's .1.

The convolutions compute in the type of their input (bf16 under autocast), and so do bias and blur.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from condgen.networks.layers import SLOPE

ROOT2 = math.sqrt(2)
"""Gain of a layer with a leaky rectifier behind it, as He et al. have it for a rectifier."""


class EqualLinear(nn.Module):
    """A dense layer.

    Args:
        n_in, n_out: numbers in and out.
        gain: the standard deviation of an output for inputs of N(0, 1).
        lr_mul: of weights and bias.
    """

    def __init__(self, n_in: int, n_out: int, gain: float = ROOT2, lr_mul: float = 1.0):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in) / lr_mul)
        self.bias = nn.Parameter(torch.zeros(n_out))
        self.scale, self.lr_mul = gain * lr_mul / math.sqrt(n_in), lr_mul

    def forward(self, x: Float[Tensor, "*b n_in"]) -> Float[Tensor, "*b n_out"]:
        return F.linear(x, self.weight * self.scale, self.bias * self.lr_mul)


class EqualConv(nn.Module):
    """A convolution without bias that keeps the sides, halves them (`down`) or doubles them (`up`).

    Doubling is nearest-neighbour upsampling and the convolution, in one: what four copies of a pixel meet in a 3x3 kernel is one
    kernel of 4x4, transposed, with stride 2. It saves more than half of the multiplications, and is the same function (tested).
    """

    def __init__(self, n_in: int, n_out: int, kernel: int = 3, gain: float = ROOT2, up: bool = False, down: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n_out, n_in, kernel, kernel))
        self.scale, self.up, self.down = gain / math.sqrt(n_in * kernel**2), up, down
        self.padding = kernel // 2

    def forward(self, x: Float[Tensor, "b n_in h w"]) -> Float[Tensor, "b n_out h2 w2"]:
        weight = self.weight * self.scale
        if self.up:
            return F.conv_transpose2d(x, doubled(weight), stride=2, padding=1)
        return F.conv2d(x, weight, stride=2 if self.down else 1, padding=self.padding)


def doubled(weight: Float[Tensor, "n_out n_in 3 3"]) -> Float[Tensor, "n_in n_out 4 4"]:
    """The kernel of a transposed convolution (stride 2, padding 1) that does what nearest upsampling and this one do."""
    w = F.pad(weight.flip(2, 3).transpose(0, 1), (1, 1, 1, 1))
    return w[:, :, 1:, 1:] + w[:, :, :-1, 1:] + w[:, :, 1:, :-1] + w[:, :, :-1, :-1]


class Bias(nn.Module):
    """A learned number for each channel, for layers that blur between convolution and bias."""

    def __init__(self, channels: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Float[Tensor, "b ch h w"]) -> Float[Tensor, "b ch h w"]:
        return x + self.bias.to(x.dtype).view(-1, 1, 1)


class Blur(nn.Module):
    """The low-pass [1, 2, 1] x [1, 2, 1] / 16 of each channel, with zeros beyond the border. Zhang 2019, arXiv 1904.11486."""

    kernel: Tensor

    def __init__(self, channels: int):
        super().__init__()
        row = torch.tensor([1.0, 2.0, 1.0]) / 4
        self.register_buffer("kernel", (row[:, None] * row).repeat(channels, 1, 1, 1), persistent=False)

    def forward(self, x: Float[Tensor, "b ch h w"]) -> Float[Tensor, "b ch h w"]:
        return F.conv2d(x, self.kernel.to(x.dtype), padding=1, groups=len(self.kernel))


def pixel_norm(x: Float[Tensor, "b ch *d"]) -> Float[Tensor, "b ch *d"]:
    """Vectors of channels, at each place, with a mean square of 1."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + 1e-8)


def minibatch_stddev(x: Float[Tensor, "b ch h w"], group: int = 4) -> Float[Tensor, "b ch1 h w"]:
    """x and one more channel: the standard deviation over groups of samples, averaged over channels and places. arXiv 1710.10196.

    A discriminator sees by it that samples are too much alike. Groups are of the largest size up to `group` that divides the batch.
    """
    b, _, h, w = x.shape
    size = next(n for n in range(min(group, b), 0, -1) if b % n == 0)
    grouped = x.float().unflatten(0, (size, -1))  # samples b / size apart
    deviation = (grouped.var(0, correction=0) + 1e-8).sqrt().mean((1, 2, 3))
    return torch.cat([x, deviation.repeat(size).view(b, 1, 1, 1).expand(b, 1, h, w).to(x.dtype)], 1)


def leaky(x: Tensor) -> Tensor:
    return F.leaky_relu(x, SLOPE)
