"""The same latents under the same conditions, over the steps of a training.

Read back from the grids that the run drew of itself while it trained (`training.preview`): they are the record of what it looked like then.
"""

from pathlib import Path
from typing import Any

import numpy as np

from condgen import api
from condgen.conditions import Label
from condgen.errors import BadInput, require_whole
from condgen.evaluation.grids import scale_for
from condgen.figures.canvas import Tiles, draw_tiles
from condgen.figures.subject import painter
from condgen.training.preview import COLUMNS

GAP = 1
"""Pixels between the pictures of a run's grid, before it is enlarged."""


def draw(out: Path, run: str, columns: int = 8, rows: int = 4) -> Path:
    """A column a step, a row a latent.

    Args:
        out: a PNG.
        run: that kept its grids.
        columns: steps at most, evenly chosen from the kept ones, first and last among them.
        rows: latents, each of another condition as far as there are as many.

    Raises:
        BadInput: where the run kept no grids, or grids of another layout.
    """
    require_whole("--columns", columns, 1)
    require_whole("--rows", rows, 1, COLUMNS * COLUMNS)
    model = painter(run)
    files = evenly(_kept(api.home(run)), columns)
    grids = [read_grid(file, *model.shape[1:]) for _, file in files]
    names = row_names(model, len(grids[0]))
    places = [(r, c) for c in range(COLUMNS) for r in range(min(len(g) for g in grids))][:rows]
    cells = np.stack([np.stack([g[place] for g in grids]) for place in places])
    title = f"{Path(run).name}: the same latents and conditions over the training"
    return draw_tiles(Tiles(cells, title, [names[r] for r, _ in places], [f"step\n{step}" for step, _ in files]), out)


def _kept(home: Path) -> list[tuple[int, Path]]:
    """(step, file) of every grid."""
    found = sorted((int(f.stem[5:]), f) for f in (home / "samples").glob("step-*.png") if f.stem[5:].isdigit())
    if not found:
        raise BadInput(f"{home} kept no grids of its training (samples/step-*.png): train it with --sample-every above 0")
    return found


def evenly(items: list[Any], most: int) -> list[Any]:
    """At most so many of them, as far apart as can be; a single one is the last.

    >>> evenly([1, 2, 3, 4, 5], 3), evenly([1, 2], 8), evenly([1, 2, 3], 1)
    ([1, 3, 5], [1, 2], [3])
    """
    if most == 1:
        return items[-1:]
    places = np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)
    return [items[i] for i in places]


def read_grid(file: Path, h: int, w: int) -> np.ndarray:
    """The pictures of a run's grid, uint8 (rows, 8, h, w, 3). Raises BadInput where its size is not that of such a grid."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            whole = np.asarray(image.convert("RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise BadInput(f"{file} cannot be read: {error}") from None
    scale = scale_for(max(h, w))
    height, width = (side / scale + GAP for side in whole.shape[:2])
    rows = height / (h + GAP)
    if rows % 1 or not rows or width != COLUMNS * (w + GAP):
        raise BadInput(f"{file} is {whole.shape[1]} x {whole.shape[0]} px: no grid of {COLUMNS} columns of pictures of {h} x {w} px")
    small = np.pad(whole[::scale, ::scale], ((0, GAP), (0, GAP), (0, 0)))
    return small.reshape(int(rows), h + GAP, COLUMNS, w + GAP, 3)[:, :h, :, :w].swapaxes(1, 2)


def row_names(model: Any, rows: int) -> list[str]:
    """What each row of a run's grid was asked for: a class, or a row of the data."""
    label = next((c for c in model.schema.values() if isinstance(c, Label)), None)
    if label:
        return list(label.names[:rows])
    return [f"{'condition' if model.schema else 'latent'} {i + 1}" for i in range(rows)]
