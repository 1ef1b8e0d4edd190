"""Convolutional nets from picture to picture, and from picture to patches, with instance norms: a sample stands alone.

Layers of Zhu et al. 2017, arXiv 1703.10593, appendix, after Johnson et al. 2016, arXiv 1603.08155.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from condgen.networks.layers import SLOPE

UP = ("transposed", "resize")
DIVIDES = 4
"""A translation net halves its picture twice and doubles it twice: sides are multiples of this."""


class TranslationNet(nn.Module):
    """c7s1-k, d2k, d4k, R4k x blocks, u2k, uk, c7s1, tanh, of the paper's appendix: (b, c, h, w) to the same."""

    def __init__(self, channels: int, width: int, blocks: int, up: str):
        super().__init__()
        w = width
        ends = (nn.ReflectionPad2d(3), nn.Conv2d(channels, w, 7, bias=False), *normed()), (nn.ReflectionPad2d(3), nn.Conv2d(w, channels, 7))
        down = [layer for k in (w, 2 * w) for layer in (nn.Conv2d(k, 2 * k, 3, 2, 1, bias=False), *normed())]
        grown = [layer for k in (4 * w, 2 * w) for layer in (*doubling(k, up), *normed())]
        self.layers = nn.Sequential(*ends[0], *down, *(Residual(4 * w) for _ in range(blocks)), *grown, *ends[1])
        drawn_small(self)

    def forward(self, x: Float[Tensor, "b ch h w"]) -> Float[Tensor, "b ch h w"]:
        return torch.tanh(self.layers(x).float())


class InstanceNorm(nn.Module):
    """Each channel of each picture at mean 0 and variance 1, with no weights. Ulyanov et al. 2016, arXiv 1607.08022."""

    def forward(self, x: Float[Tensor, "b ch h w"]) -> Float[Tensor, "b ch h w"]:
        return F.instance_norm(x)


class Residual(nn.Module):
    """x + two 3x3 convolutions of it; no rectifier behind the sum."""

    def __init__(self, k: int):
        super().__init__()
        first, second = ((nn.ReflectionPad2d(1), nn.Conv2d(k, k, 3, bias=False)) for _ in range(2))
        self.layers = nn.Sequential(*first, *normed(), *second, InstanceNorm())

    def forward(self, x: Float[Tensor, "b ch h w"]) -> Float[Tensor, "b ch h w"]:
        return x + self.layers(x)


class PatchDiscriminator(nn.Module):
    """Ck without norm, C2k, C4k at half the side each, C8k at the same, then one logit a patch: (b, c, h, w) to (b, 1, h', w').

    `layers` of them halve; channels grow to eight times the first at most.
    """

    def __init__(self, channels: int, width: int, layers: int):
        super().__init__()
        ks = [width * 2 ** min(i, 3) for i in range(layers + 1)]
        found: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(SLOPE)]
        for i, (a, b) in enumerate(zip(ks, ks[1:], strict=False), 1):
            stride = 2 if i < layers else 1
            found += [nn.Conv2d(a, b, 4, stride, 1, bias=False), InstanceNorm(), nn.LeakyReLU(SLOPE)]
        self.layers = nn.Sequential(*found, nn.Conv2d(ks[-1], 1, 4, 1, 1))
        drawn_small(self)

    def forward(self, x: Float[Tensor, "b ch h w"]) -> Float[Tensor, "b 1 i j"]:
        return self.layers(x).float()


def normed() -> tuple[nn.Module, nn.Module]:
    return InstanceNorm(), nn.ReLU()


def doubling(k: int, up: str) -> tuple[nn.Module, ...]:
    """From k channels to k / 2 at twice the side."""
    if up == "transposed":
        return (nn.ConvTranspose2d(k, k // 2, 3, 2, 1, output_padding=1, bias=False),)
    return nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1), nn.Conv2d(k, k // 2, 3, bias=False)


def drawn_small(net: nn.Module) -> None:
    """Weights of N(0, .02), biases of 0."""
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(layer.weight, 0.0, 0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
