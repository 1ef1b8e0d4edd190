"""What noise does: one w with noise in no layer, in all, in fine ones and in coarse ones (or as is asked), and which pixels it moves.

Karras, Laine & Aila 2019, arXiv 1812.04948, figures 4 and 5.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condgen.editing.views import bands, layers_of, told
from condgen.errors import BadInput, require_whole
from condgen.figures.canvas import Tiles, colours, draw_tiles
from condgen.figures.styles import latents, styled
from condgen.figures.subject import Words

COLOURS = "magma"
"""Of matplotlib: black for 0."""


@torch.no_grad()
def draw(
    out: Path,
    run: str,
    asked: Words = (),
    n: int = 100,
    rows: int = 4,
    psi: float | None = None,
    layers: Sequence[str] = (),
    seed: int = 0,
) -> Path:
    """A row a w: panels under the same noise, and the standard deviation of each pixel over n draws of it.

    Beside no noise and noise in all layers stands a panel for each of `layers`; by default one of fine layers and one of coarse ones.
    Fine layers are those of `views.bands`: above 32 px, of smaller pictures the largest. All others are coarse there, as in the paper.

    Args:
        out: a PNG.
        run: of a model with styles and noise.
        asked: what all samples are asked for; the rest comes from training rows.
        n: draws of the noise.
        rows: how many w.
        psi: truncation; by default the model's.
        layers: which have noise, as of `views.layers_of`: a band's name, numbers, ranges.
        seed: of latents, of noise and of what is left open.

    Raises:
        BadInput: for a model without styles, or without noise; for layers that there are not, or that are named twice.
    """
    require_whole("-n", n, 2, 10_000)
    require_whole("--rows", rows, 1, 32)
    require_whole("--seed", seed, 0)
    model = styled(run, "noise", psi)
    if not model.draw_noise(1):
        raise BadInput(f"{run} has no noise in its layers: there is nothing to be shown")
    wanted = chosen(model.layer_sides, layers) if layers else fine_and_coarse(model.layer_sides)
    w, _ = latents(model, asked, rows, seed)
    panels = _panels(model, w, wanted)
    spread = spread_of_noise(model, w, n)
    if not float(spread.max()):
        raise BadInput(f"{run} draws the same whatever its noise: it has not learnt to use it")
    shown = [*(colours(x.cpu()) for x in panels.values()), heat(spread)]
    top = f"s.d. of {n}\nbright {float(spread.max()):.2g}"
    tiles = np.stack(shown, 1)
    title = f"{Path(run).name}: one w a row, noise in some layers\ns.d.: of each pixel, of pictures in [-1, 1]"
    return draw_tiles(Tiles(tiles, title, (), [*panels, top], apart_columns=frozenset({len(panels)})), out)


def _panels(model: Any, w: Tensor, wanted: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """title -> pictures (b, c, h, w) in [-1, 1]: the same noise, let into some of the layers."""
    noise = model.draw_noise(len(w))
    every = {"no noise": (), "all layers": range(len(noise)), **wanted}
    return {title: model.synthesis(w, let_into(noise, layers)).clamp(-1, 1) for title, layers in every.items()}


def fine_and_coarse(sides: Sequence[int]) -> dict[str, list[int]]:
    """title -> layers: fine ones, and all others, as far as there are any."""
    fine = bands(sides)["fine"]
    rest = [i for i in range(len(sides)) if i not in fine]
    found = {"fine": fine} | ({"coarse": rest} if rest else {})
    return {f"{name}\n{told_px(sides, layers)}": layers for name, layers in found.items()}


def chosen(sides: Sequence[int], words: Sequence[str]) -> dict[str, list[int]]:
    """title -> layers, of what a person named. Raises BadInput for layers that there are not, or that are named twice.

    >>> chosen((4, 4, 8, 8), ["fine", "0,3"])
    {'fine\\n8 px': [2, 3], 'layers 0, 3\\n4-8 px': [0, 3]}
    """
    found: dict[str, list[int]] = {}
    for word in words:
        layers = layers_of(sides, word)
        if layers in found.values():
            raise BadInput(f"--layers {word}: layers {told(layers)} have a panel already")
        found[f"{word if word in bands(sides) else _numbered(layers)}\n{told_px(sides, layers)}"] = layers
    return found


def _numbered(layers: Sequence[int]) -> str:
    return f"layer{'s' if len(layers) > 1 else ''} {told(layers)}"


def let_into(noise: Sequence[Tensor], layers: Sequence[int]) -> list[Tensor]:
    """Noise pictures, 0 in all other layers."""
    return [one if i in layers else torch.zeros_like(one) for i, one in enumerate(noise)]


def told_px(sides: Sequence[int], layers: Sequence[int]) -> str:
    """The sizes of layers in words.

    >>> told_px((4, 4, 8, 8), [0, 1, 2, 3])
    '4-8 px'
    """
    ends = sorted({sides[i] for i in layers})
    return f"{ends[0]}-{ends[-1]} px" if len(ends) > 1 else f"{ends[0]} px"


@torch.no_grad()
def spread_of_noise(model: Any, w: Tensor, n: int) -> Tensor:
    """Standard deviation of each pixel (b, h, w) over n draws of noise, in units of pictures in [-1, 1]: the root mean square of channels.

    Args:
        model: with styles.
        w: (b, d) or (b, layers, d).
        n: draws.
    """
    first = model.synthesis(w, model.draw_noise(len(w))).clamp(-1, 1).double()
    total, squares = torch.zeros_like(first), torch.zeros_like(first)
    for _ in range(n):
        moved = model.synthesis(w, model.draw_noise(len(w))).clamp(-1, 1).double() - first  # near 0: sums of squares stay exact
        total, squares = total + moved, squares + moved.square()
    variance = (squares / n - (total / n).square()).clamp(min=0)
    return variance.mean(1).sqrt().cpu()


def heat(spread: Tensor) -> np.ndarray:
    """Numbers of at least 0 (b, h, w) as colours, uint8 (b, h, w, 3); the largest of all is the brightest."""
    import matplotlib

    shades = matplotlib.colormaps[COLOURS]((spread / spread.max()).numpy())
    return (255 * shades[..., :3]).round().astype(np.uint8)
