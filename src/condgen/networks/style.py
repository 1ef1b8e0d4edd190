"""Style-based nets: the mapping z -> w, the synthesis of w layer by layer, and the encoder that reads styles.

    AdaIN(x, y) = (1 + y_s) (x - mean(x)) / std(x) + y_b,   (y_s, y_b) = A(w), each channel's statistics its own

Karras, Laine & Aila 2019, "A Style-Based Generator Architecture for GANs", arXiv 1812.04948; the demodulation is that of StyleGAN2, arXiv
1912.04958; the encoder is StyleALAE's, arXiv 2004.04467. One layer of the synthesis: convolution, blur where it doubled the sides, noise,
bias, leaky rectifier, normalisation, style. Plain torch: the same code on every device, and differentiable twice.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from condgen.conditions import Schema, Values
from condgen.networks.conv import pyramid
from condgen.networks.embed import SchemaEmbedding
from condgen.networks.equalised import ROOT2, Bias, Blur, EqualConv, EqualLinear, doubled, leaky, pixel_norm

Noises = Sequence[Tensor]
"""A picture of noise, (b or 1, 1, h, w), for each layer."""


def stages(shape: tuple[int, ...], width: int, widest: int) -> tuple[list[tuple[int, int]], list[int]]:
    """Sides and channels of each resolution, the smallest first: sides double, channels halve from `widest` on down to `width`.

    >>> stages((3, 32, 32), 32, 128)
    ([(4, 4), (8, 8), (16, 16), (32, 32)], [128, 128, 64, 32])

    Raises:
        BadInput: if the picture is no (c, h, w) with both sides of at least 4 px.
    """
    (h, w), channels = pyramid(shape, 1)
    n = len(channels)
    return [(h * 2**i, w * 2**i) for i in range(n)], [min(widest, width * 2 ** (n - 1 - i)) for i in range(n)]


class Mapping(nn.Module):
    """z and conditions -> w: each normalised, joined, then dense layers with leaky rectifiers. Without any layer, w is the normalised z.

    Apart, so that conditions weigh as much as z from the first step: the published labels enter by a matrix of N(0, 1).

    Args:
        z_dim: of z and, where there is a layer, of w; `out` is the dimension of w.
        schema: conditions; {} for none.
        depth: layers.
        lr_mul: of all of them.
        embed_dim: features of each condition.
    """

    def __init__(self, z_dim: int, schema: Schema, depth: int, lr_mul: float, embed_dim: int = 64):
        super().__init__()
        self.embed = SchemaEmbedding(schema, embed_dim)
        widths = [z_dim + self.embed.out, *[z_dim] * depth]
        self.out = widths[-1]
        self.layers = nn.ModuleList(EqualLinear(a, b, lr_mul=lr_mul) for a, b in pairwise(widths))

    def forward(self, z: Float[Tensor, "b z"], c: Values) -> Float[Tensor, "b wd"]:
        h = pixel_norm(z)
        if self.embed.names:
            h = torch.cat([h, pixel_norm(self.embed(c, z[:, :0]))], 1)
        for layer in self.layers:
            h = leaky(layer(h))
        return h.float()


def adain(x: Float[Tensor, "b ch h w"], style: Float[Tensor, "b ch2"]) -> Float[Tensor, "b ch h w"]:
    """Channels brought to mean y_b and standard deviation 1 + y_s; `style` is (y_s, y_b) side by side."""
    scale, shift = style.to(x.dtype)[:, :, None, None].chunk(2, 1)
    return torch.addcmul(shift, F.instance_norm(x, eps=1e-8), 1 + scale)


def modulated(x: Tensor, conv: EqualConv, scale: Float[Tensor, "b n_in"], demodulate: bool = True) -> Tensor:
    """StyleGAN2's modulated convolution: every sample's own kernel W s, and outputs brought to unit variance.

    By scaling the input before and the output behind one convolution for the whole batch; `grouped` is the same by kernels.
    """
    y = conv(x * scale.to(x.dtype)[:, :, None, None])
    return y * demodulation(conv, scale).to(x.dtype)[:, :, None, None] if demodulate else y


def demodulation(conv: EqualConv, scale: Float[Tensor, "b n_in"]) -> Float[Tensor, "b n_out"]:
    """1 / sqrt(sum (W s)^2) over each output's kernel. arXiv 1912.04958, equation (3)."""
    energy = (conv.weight.float() * conv.scale).square().sum((2, 3))
    return torch.rsqrt(scale.float().square() @ energy.T + 1e-8)


def grouped(x: Tensor, conv: EqualConv, scale: Float[Tensor, "b n_in"], demodulate: bool = True) -> Tensor:
    """`modulated` as a convolution in as many groups as samples, each with its own kernel: the published form, for comparison."""
    b, n_in, h, w = x.shape
    kernels = conv.weight * conv.scale * scale[:, None, :, None, None]
    if demodulate:
        kernels = kernels * torch.rsqrt(kernels.square().sum((2, 3, 4), keepdim=True) + 1e-8)
    flat = x.reshape(1, b * n_in, h, w)
    if conv.up:
        y = F.conv_transpose2d(flat, torch.cat([doubled(k) for k in kernels]), stride=2, padding=1, groups=b)
    else:
        y = F.conv2d(flat, kernels.flatten(0, 1), padding=conv.padding, groups=b)
    return y.view(b, -1, *y.shape[2:])


class StyleLayer(nn.Module):
    """One layer of the synthesis.

    Args:
        n_in: channels before; 0 for the first layer of all, which has no convolution.
        n_out: channels behind.
        w_dim: of the style's w.
        up: the convolution doubles the sides.
        blur: and what it doubled is blurred.
        noisy: noise is added, by a weight for each channel that starts at zero.
        kind: "adain"; "demodulated"; "plain" for pixel norm and no style, as in progressive growing.
    """

    def __init__(self, n_in: int, n_out: int, w_dim: int, up: bool, blur: bool, noisy: bool, kind: str):
        super().__init__()
        self.kind = kind
        self.conv = EqualConv(n_in, n_out, up=up) if n_in else None
        self.blur = Blur(n_out) if up and blur else nn.Identity()
        self.bias = Bias(n_out)
        self.noise = nn.Parameter(torch.zeros(n_out)) if noisy else None
        styles = {"adain": 2 * n_out, "demodulated": n_in, "plain": 0}[kind]
        self.style = EqualLinear(w_dim, styles, gain=1.0) if styles else None

    def forward(self, x: Float[Tensor, "b ch h w"], w: Float[Tensor, "b wd"], noise: Tensor | None) -> Tensor:
        if self.conv is not None:
            styled = self.style is not None and self.kind == "demodulated"
            x = self.blur(modulated(x, self.conv, 1 + self.style(w)) if styled else self.conv(x))  # type: ignore[misc]
        if self.noise is not None and noise is not None:
            x = x + noise.to(x.dtype) * self.noise.to(x.dtype).view(-1, 1, 1)
        x = leaky(self.bias(x))
        if self.kind == "adain" and self.style is not None:
            if self.conv is None:
                x = x - x[:, :, :1, :1]  # the norm does not see it; but an even map less its mean is rounding, which it would enlarge
            return adain(x, self.style(w))
        return pixel_norm(x) if self.kind == "plain" else x * math.sqrt(2)


class Synthesis(nn.Module):
    """w -> picture, two layers a resolution.

    Args:
        shape: (c, h, w) of the picture.
        w_dim: of w.
        width, widest: channels at full size, and at most.
        constant: the first 4x4 is learned, and starts at one; else a dense layer makes it of w.
        noisy: noise in every layer.
        blur: doubled pictures are blurred.
        kind: as of `StyleLayer`.
        growing: every resolution has a picture of its own, for progressive growing.
        picture_gain: of the map to colours, which is linear.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        w_dim: int,
        width: int,
        widest: int,
        constant: bool = True,
        noisy: bool = True,
        blur: bool = True,
        kind: str = "adain",
        growing: bool = False,
        picture_gain: float = 1.0,
    ):
        super().__init__()
        self.sides, channels = stages(shape, width, widest)
        first = (channels[0], *self.sides[0])
        self.first = nn.Parameter(torch.ones(1, *first)) if constant else EqualLinear(w_dim, math.prod(first), ROOT2 / 4)
        self.start, self.noisy = first, noisy
        before = channels[0] if kind == "demodulated" else 0  # which has no style without a convolution
        self.layers = nn.ModuleList()
        for i, (a, b) in enumerate(zip([before, *channels], channels, strict=False)):
            self.layers.append(StyleLayer(a, b, w_dim, i > 0, blur, noisy, kind))
            self.layers.append(StyleLayer(b, b, w_dim, False, blur, noisy, kind))
        shown = range(len(channels)) if growing else [len(channels) - 1]
        self.pictures = nn.ModuleDict({str(i): Picture(channels[i], shape[0], picture_gain) for i in shown})

    @property
    def layer_sides(self) -> tuple[tuple[int, int], ...]:
        return tuple(side for side in self.sides for _ in (0, 1))

    @property
    def noise_sides(self) -> tuple[tuple[int, int], ...]:
        return self.layer_sides if self.noisy else ()

    def forward(self, w: Float[Tensor, "b layers wd"], noise: Noises, stage: float | None = None) -> Float[Tensor, "b ch h2 w2"]:
        """The picture, linear and without bounds, at the size of `stage`: the number of doublings, by default all of them.

        Between two stages the larger picture is that share of the way from the smaller one, doubled, to itself.
        """
        last = len(self.sides) - 1 if stage is None else math.ceil(stage)
        x, before = self.begin(w[:, 0]), None
        for i, layer in enumerate(self.layers[: 2 * last + 2]):
            if i == 2 * last and last > 0:
                before = x
            x = layer(x, w[:, i], noise[i] if self.noisy else None)
        picture = self.pictures[str(last)](x)
        share = 1.0 if stage is None else stage - (last - 1)
        if share == 1.0 or before is None:
            return picture
        smaller = F.interpolate(self.pictures[str(last - 1)](before), scale_factor=2.0)
        return torch.lerp(smaller, picture, share)

    def begin(self, w: Float[Tensor, "b wd"]) -> Float[Tensor, "b ch h w"]:
        if isinstance(self.first, nn.Parameter):
            return self.first.expand(len(w), *self.start)
        return self.first(w).unflatten(1, self.start)


class Picture(nn.Module):
    """Channels to colours, linear; float32."""

    def __init__(self, channels: int, colours: int, gain: float):
        super().__init__()
        self.conv, self.bias = EqualConv(channels, colours, 1, gain), Bias(colours)

    def forward(self, x: Tensor) -> Tensor:
        return self.bias(self.conv(x)).float()
