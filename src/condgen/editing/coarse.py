"""Sizes on the way to a large picture, and pictures brought to them.

A style's strokes are as wide as the net sees, so that a large picture that is painted at once gets small ones, and a descent from noise
takes long to agree on what is far apart. Painted small first, and then again at twice the size from there, it has both. Gatys et al.
2017, arXiv 1611.07865, section 6.
"""

import math
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from condgen.editing.transfer import Masks

AT_ONCE_PX = 256
"""Up to this longer side a picture is painted at once."""
SMALLEST_PX = 32
"""Shorter side below which VGG-19's fifth level has too few cells to speak of a style."""


def sizes(h: int, w: int, levels: int | None = None) -> list[tuple[int, int]]:
    """(height, width) of each painting, halved from the last one to the first; by default until the longer side is at most 256 px.

    >>> sizes(384, 512), sizes(200, 250), sizes(600, 800)
    ([(192, 256), (384, 512)], [(200, 250)], [(150, 200), (300, 400), (600, 800)])
    """
    if levels is None:
        levels = 1 + max(0, math.ceil(math.log2(max(h, w) / AT_ONCE_PX)))
    halved = [(round(h / 2**k), round(w / 2**k)) for k in range(levels)]
    return [size for k, size in reversed(list(enumerate(halved))) if k == 0 or min(size) >= SMALLEST_PX]


def resized(x: Tensor, size: Sequence[int]) -> Tensor:
    """Pictures (b, c, h, w) at another (height, width): bicubic, antialiased where they shrink."""
    return (
        x if tuple(x.shape[-2:]) == tuple(size) else F.interpolate(x, size=list(size), mode="bicubic", antialias=True, align_corners=False)
    )


def of_area(x: Tensor, area: float) -> tuple[int, int]:
    """(height, width) of about so many pixels, in the proportions of x, neither side below 32 px."""
    scale = math.sqrt(area / (x.shape[-2] * x.shape[-1]))
    h, w = (max(SMALLEST_PX, round(n * scale)) for n in x.shape[-2:])
    return h, w


def masks_at(masks: Masks | None, content: Tensor, styles: Sequence[Tensor]) -> Masks | None:
    """Masks at the sizes of these pictures."""
    if masks is None:
        return None
    at = [F.interpolate(m, size=x.shape[-2:], mode="area") for m, x in zip([masks.content, *masks.styles], [content, *styles], strict=True)]
    return Masks(at[0], at[1:], masks.names)
