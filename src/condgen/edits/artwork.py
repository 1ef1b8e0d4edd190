"""What `condgen stylize` reads and writes: photographs, styles, the feature net and the recipe as they are asked for; and paintings."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condgen import backbones
from condgen.data.images import read_rgb
from condgen.data.store import to_bytes, to_float
from condgen.data.video import is_clip
from condgen.editing.coarse import of_area
from condgen.editing.stylize import MOST_PIXELS, SMOOTH, style_pixels
from condgen.editing.transfer import RECIPES, Recipe
from condgen.edits.stylize import NOTE, Asked
from condgen.errors import BadInput, unknown
from condgen.networks.features import FeatureNet
from condgen.training.checkpoint import atomic

log = logging.getLogger("condgen")

USUAL_PX = 512
"""The longer side of a painting where none is asked for and the photo is larger."""
ANY_NET = ("relative",)
"""Recipes whose weights mean the same with all nets."""


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def net_of(asked: Asked) -> FeatureNet:
    """The eyes, as the recipe wants them: gatys2016 has means in place of largest values, and filters of mean activation 1."""
    gatys = asked.recipe == "gatys2016"
    net = backbones.feature_net(asked.net, asked.pooling or ("average" if gatys else "max"), normalised=gatys).to(device())
    published = net.id.startswith("vgg19") and "distilled" not in net.id
    if asked.recipe not in ANY_NET and not published:
        log.info("the weights of %s were chosen for VGG-19; of %s they may need another --style-weight", asked.recipe, net.id)
    return net


def recipe_of(asked: Asked) -> Recipe:
    """The recipe with what the person wants otherwise. Raises BadInput for an unknown one."""
    if asked.recipe not in RECIPES:
        raise unknown("recipe", asked.recipe, RECIPES)
    plain = asked.recipe == "relative" and not asked.photo and not is_clip(asked.content)
    recipe = SMOOTH if plain else RECIPES[asked.recipe]
    wishes: dict[str, Any] = {"style": asked.style_weight, "tv": asked.tv, "steps": asked.steps}
    recipe = replace(recipe, **{k: v for k, v in wishes.items() if v is not None})
    if asked.optimizer is None or asked.optimizer == recipe.optimizer:
        return recipe
    return replace(recipe, optimizer=asked.optimizer, lr=None)


# --- in -------------------------------------------------------------------------------------------------------------------


def pictures_of(asked: Asked) -> tuple[Tensor, list[Tensor]]:
    """The content (1, 3, h, w) and the styles (1, 3, h', w'), in [-1, 1]. Raises BadInput for files and sizes that cannot be used."""
    content = read_picture(asked.content, asked.size, USUAL_PX)
    return content, styles_of(asked, content)


def styles_of(asked: Asked, content: Tensor) -> list[Tensor]:
    return [read_style(s, content, asked.style_scale) for s in asked.styles]


def read_picture(file: Path, size: int | None, usual: int) -> Tensor:
    """(1, 3, h, w) in [-1, 1], its longer side brought to `size` px, or shrunk to the usual one.

    Raises:
        BadInput: for what cannot be read, and for a size of more pixels than are painted.
    """
    pixels = read_rgb(file)
    h, w = pixels.shape[:2]
    return tensor_of(pixels, *size_of(h, w, size, usual))


def size_of(h: int, w: int, size: int | None, usual: int) -> tuple[int, int]:
    """(height, width) of a picture as it is painted. Raises BadInput for more pixels than are painted."""
    scale = (size or min(usual, max(h, w))) / max(h, w)
    h, w = max(1, round(h * scale)), max(1, round(w * scale))
    if h * w > MOST_PIXELS:
        most = int(max(h, w) * (MOST_PIXELS / (h * w)) ** 0.5)
        raise BadInput(f"{w}x{h} px are {h * w / 1e6:.1f} megapixels; at most {MOST_PIXELS / 1e6:g} are painted: --size {most}")
    return h, w


def read_style(file: Path, content: Tensor, scale: float) -> Tensor:
    """(1, 3, h', w') in [-1, 1], no larger than it is needed for the strokes of a picture like `content`."""
    pixels = read_rgb(file)
    h, w = pixels.shape[:2]
    needed = of_area(torch.empty(1, 1, h, w, device="meta"), style_pixels(content, scale))
    return tensor_of(pixels, *(needed if needed[0] < h else (h, w)))


def tensor_of(pixels: np.ndarray, h: int, w: int) -> Tensor:
    """uint8 (h', w', 3) as (1, 3, h, w) in [-1, 1], on the device (Lanczos, antialiased)."""
    from PIL import Image

    if pixels.shape[:2] != (h, w):
        pixels = np.asarray(Image.fromarray(pixels).resize((w, h), Image.Resampling.LANCZOS))
    return to_float(np.array(pixels)[None]).to(device())


# --- out ------------------------------------------------------------------------------------------------------------------


def write_picture(x: Tensor, out: Path, note: str) -> None:
    """(1, 3, h, w) as a file, whole or not at all. Raises BadInput for a place that cannot be written."""
    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text(NOTE, note)
    kinds: dict[str, tuple[str, dict[str, Any]]] = {".png": ("PNG", {"pnginfo": info}), ".webp": ("WEBP", {"quality": 95})}
    kind, options = kinds.get(out.suffix.lower(), ("JPEG", {"quality": 95}))
    try:
        with atomic(out) as draft:
            Image.fromarray(to_bytes(x.cpu())[0]).save(draft, kind, **options)
    except OSError as error:
        raise BadInput(f"{out} cannot be written: {error}") from None
