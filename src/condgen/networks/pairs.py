"""Encoders to relu1_1 ... relu5_1 of VGG-19, and decoders that draw a picture from each: what feed-forward style transfer paints with.

Wang et al. 2020, arXiv 2003.08436, distilled with a quarter of VGG-19's channels. A decoder mirrors its encoder: convolutions with
reflection padding and rectifiers, doubled by repetition where the encoder halves, the last rectifier included.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from condgen.errors import require_whole
from condgen.networks.features import VGG_NAMES, Weights, distilled, filled_conv

LEVELS = (1, 2, 3, 4, 5)


class Pair(nn.Module):
    """Encoder and decoder of one level.

    Args:
        weights: keys `e4.conv11.weight`, `d4.conv41.weight`.
        level: 1 to 5.
    """

    def __init__(self, weights: Weights, level: int):
        super().__init__()
        require_whole("level", level, 1, 5)
        self.level = level
        self.encoder = distilled(weights, encoder=level)
        names = mirrored(level)
        channels = weights[f"d{level}.{names[0]}.weight"].shape[1]
        layers = []
        for name in names:
            layers.append(filled_conv(weights, f"d{level}.{name}", channels, "reflect"))
            channels = layers[-1].out_channels
        self.names, self.decoder = names, nn.ModuleList(layers)
        self.requires_grad_(False).eval()

    @property
    def stride(self) -> int:
        """Pixels of the picture to a place of its code; sides must be multiples of it to come back as they were."""
        return 2 ** (self.level - 1)

    @property
    def reach(self) -> int:
        """Pixels that something may be away and still change a pixel of what comes back."""
        convs, pools = (2 ** int(name[4]) // 2 for name in self.names), (2**k for k in range(self.level - 1))
        return 2 * sum(convs) + 2 * sum(pools)

    def encode(self, x: Float[Tensor, "b ch h w"]) -> Float[Tensor, "b n h2 w2"]:
        """Pictures in [-1, 1] to activations of relu<level>_1."""
        name = f"relu{self.level}_1"
        return self.encoder(x, (name,))[name]

    def decode(self, code: Float[Tensor, "b n h w"]) -> Float[Tensor, "b ch h2 w2"]:
        """Pictures, from -1; few values lie above 1."""
        a = code
        for name, conv in zip(self.names, self.decoder, strict=True):
            a = F.relu(conv(a))
            if name.endswith("1") and name != "conv11":
                a = F.interpolate(a, scale_factor=2.0)
        return 2 * a - 1


def mirrored(level: int) -> tuple[str, ...]:
    """The decoder's convolutions, from the deepest.

    >>> mirrored(3)
    ('conv31', 'conv22', 'conv21', 'conv12', 'conv11')
    """
    names: Sequence[str] = [name.replace("_", "") for name in VGG_NAMES]
    return tuple(reversed(names[: names.index(f"conv{level}1") + 1]))


def pairs(weights: Weights, levels: Sequence[int] = LEVELS) -> dict[int, Pair]:
    """level -> encoder and decoder."""
    return {level: Pair(weights, level) for level in levels}
