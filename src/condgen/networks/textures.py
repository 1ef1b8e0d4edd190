"""A feature net that is trained here: eight convolutions under VGG-19's names, trained on Gram matrices.

Batch norm serves training alone; `weights` has it folded into the convolutions, which is exact. Pooling is by means: descended through
largest values, pictures kept the grain of the noise they started from.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from condgen.networks.features import IN_HOUSE, Halving
from condgen.objectives.perceptual import gram

STYLE = tuple(name for name in IN_HOUSE if name.endswith("_1"))
"""Layers whose statistics are a texture: the first of each level."""
SMALLEST_PX = 32
"""A picture of this side still has two places a side at the fifth level."""


class TextureNet(nn.Module):
    """Pictures (b, ch, h, w) in [-1, 1] to directions: the Gram matrices of each level's first layer, each brought to length 1.

    The scalar product of two directions is then the mean cosine of the Gram matrices: what tells textures apart has to be in these, and not
    in what stands where.

    Args:
        width: channels of the first level; the second has twice as many, the others four times.
    """

    def __init__(self, width: int = 16):
        super().__init__()
        sizes = [width * (1, 2, 4, 4, 4)[int(name[4]) - 1] for name in IN_HOUSE]
        channels = [3, *sizes]
        self.convs = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, padding_mode="reflect", bias=False) for a, b in zip(channels, channels[1:], strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(n) for n in sizes)
        self.halve = Halving("average")
        for conv in self.convs:
            nn.init.kaiming_normal_(conv.weight)  # type: ignore[arg-type]

    def forward(self, x: Float[Tensor, "b ch h w"]) -> Float[Tensor, "b n"]:
        grams = [gram(a.float()).flatten(1) for a in self.activations(x)]
        return torch.cat([F.normalize(g, dim=1) for g in grams], 1) / len(grams) ** 0.5

    def activations(self, x: Float[Tensor, "b ch h w"]) -> list[Tensor]:
        """Of the style layers, rectified, (b, channels, h', w') each."""
        found, a = [], x.expand(-1, 3, -1, -1)
        for name, conv, norm in zip(IN_HOUSE, self.convs, self.norms, strict=True):
            a = F.relu(norm(conv(self.halve(a) if name in STYLE[1:] else a)))
            if name in STYLE:
                found.append(a)
        return found

    @torch.no_grad()
    def weights(self) -> dict[str, Tensor]:
        """The convolutions with their norms folded in, as `features.in_house` reads them."""
        found = {}
        for name, conv, norm in zip(IN_HOUSE, self.convs, self.norms, strict=True):
            found[f"{name}.weight"], found[f"{name}.bias"] = folded(conv, norm)  # type: ignore[arg-type]
        return found


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weights and bias of the one convolution that does what `conv` and `norm`, in eval mode, do."""
    assert norm.running_mean is not None and norm.running_var is not None
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    bias = norm.bias - norm.running_mean * scale
    return conv.weight * scale[:, None, None, None], bias if conv.bias is None else bias + conv.bias * scale
