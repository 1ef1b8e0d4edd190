"""A photograph painted by one pass through encoders and decoders: `condgen stylize --fast`.

The pass takes bounded memory; so does what is measured of it, on copies whose longer side is at most 512 px.
"""

import time
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from condgen.editing.coarse import SMALLEST_PX, of_area, resized
from condgen.editing.colours import finished, prepared
from condgen.editing.feedforward import stylize_fast
from condgen.editing.stylize import style_pixels
from condgen.editing.transfer import RECIPES, Transfer
from condgen.edits import Done
from condgen.edits.artwork import net_of, pictures_of, write_picture
from condgen.edits.painting import fingerprint, said
from condgen.edits.stylize import Asked
from condgen.networks.features import FeatureNet

MEASURED_PX = 512
"""Longer side of the copies that are measured, of the picture's and of its styles'."""
METHOD = "wct"
"""The one that comes nearer to the style, and the default of `stylize_fast`."""


def paint(asked: Asked) -> Done:
    """See `stylize.stylize`."""
    began = time.monotonic()
    net = net_of(asked)
    content, styles = pictures_of(asked)
    seen, prepared_styles = prepared(content, styles, asked.colours)
    scaled = [resized(s, of_area(s, style_pixels(content, asked.style_scale))) for s in prepared_styles]
    x = stylize_fast(seen, scaled, asked.strength, asked.method or METHOD, shares=asked.shares)
    measures = measured(net, seen, prepared_styles, x, asked)
    write_picture(finished(x, content, asked.colours), asked.out, fingerprint(asked, net))
    h, w = content.shape[-2:]
    told: dict[str, Any] = {"out": str(asked.out), "net": net.id, "recipe": asked.method or METHOD, "size": [w, h], "steps": 1}
    told |= {"seconds": round(time.monotonic() - began, 1), **measures, "stopped": False}
    return Done(told, said(told))


@torch.no_grad()
def measured(net: FeatureNet, content: Tensor, styles: Sequence[Tensor], x: Tensor, asked: Asked) -> dict[str, float]:
    """ "content" and "style" of x, as `Transfer.measures` has them, on copies of at most so many px; strokes shrink with the picture."""
    h, w = content.shape[-2:]
    scale = min(1.0, MEASURED_PX / max(h, w, asked.style_scale * (h * w) ** 0.5))
    size = [max(SMALLEST_PX, round(n * scale)) for n in (h, w)]
    small = resized(content, size)
    seen = [resized(s, of_area(s, style_pixels(small, asked.style_scale))) for s in styles]
    return Transfer(net, RECIPES["relative"], small, seen, asked.shares).measures(resized(x, size))
