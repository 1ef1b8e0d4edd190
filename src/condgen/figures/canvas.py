"""Drawings on white, without the global state of pyplot; pictures keep their pixels, each drawn as a square of whole ones."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from condgen.data.store import to_bytes
from condgen.errors import BadInput

DPI = 100
LARGEST_PX = 2900
"""A figure keeps within this; more pictures than fit are refused."""
WANTED_PX = 72
"""Small pictures are enlarged to about this side."""
GAP_PX, APART_PX, MARGIN_PX = 4, 22, 14
LINE_PX, LETTER_PX = 16, 7.6
"""Of the titles, 9 points high."""
STYLE: Any = {"axes.spines.top": False, "axes.spines.right": False, "font.size": 10, "font.family": "sans-serif"}


@dataclass(frozen=True)
class Tiles:
    """Pictures in rows, with titles.

    Args:
        cells: uint8 (rows, columns, h, w, 3).
        title: above all; it may have several lines.
        rows: a title left of each row, or none.
        columns: a title above each column, or none; several lines are allowed.
        over: (row, column) -> a title above that picture alone.
        apart_rows, apart_columns: rows and columns that a wider gap stands before.
    """

    cells: np.ndarray
    title: str
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()
    over: Mapping[tuple[int, int], str] = field(default_factory=dict)
    apart_rows: frozenset[int] = frozenset()
    apart_columns: frozenset[int] = frozenset()


def colours(x: Tensor) -> np.ndarray:
    """Pictures (n, c, h, w) in [-1, 1] as uint8 (n, h, w, 3); of 2 channels or more than 3, the first or the first three."""
    shown = to_bytes(x.nan_to_num()[:, : 3 if x.shape[1] >= 3 else 1])
    return np.repeat(shown, 3, axis=3) if shown.shape[3] == 1 else shown


def draw_tiles(tiles: Tiles, out: Path) -> Path:
    """Write the tiles as a PNG. Raises BadInput for more than fits, or a place that cannot be written."""
    layout = Layout(tiles)
    with plain(layout.width / DPI, layout.height / DPI) as figure:
        axis = figure.add_axes((0, 0, 1, 1))
        axis.imshow(layout.canvas(), interpolation="nearest", extent=(0, layout.width, layout.height, 0), aspect="auto")
        axis.axis("off")
        axis.text(MARGIN_PX, MARGIN_PX, tiles.title, va="top", fontsize=10, linespacing=1.3)
        for x, y, word, how in layout.words():
            axis.text(x, y, word, fontsize=9, linespacing=1.1, **how)
        return write(figure, out)


class Layout:
    """Where everything stands, in px from the upper left corner."""

    def __init__(self, tiles: Tiles):
        self.tiles = tiles
        rows, columns, h, w = tiles.cells.shape[:4]
        for self.scale in range(max(1, round(WANTED_PX / max(h, w))), 0, -1):
            self._place(rows, columns, h * self.scale, w * self.scale)
            if max(self.width, self.height) <= LARGEST_PX:
                return
        size = f"{rows} x {columns} pictures of {h} x {w} px with their titles need {self.width} x {self.height} px"
        raise BadInput(f"{size}; a figure has at most {LARGEST_PX} each way: ask for fewer")

    def _place(self, rows: int, columns: int, h: int, w: int) -> None:
        """The places of pictures that are h x w px once enlarged, and the size of the whole."""
        tiles = self.tiles
        left = MARGIN_PX + (round(LETTER_PX * _widest(tiles.rows)) + 8 if tiles.rows else 0)
        top = MARGIN_PX + (LINE_PX + 3) * _lines([tiles.title]) + 6 + LINE_PX * _lines(tiles.columns) + (4 if tiles.columns else 0)
        self.h, self.w, self.over_px = h, w, LINE_PX + 2 if tiles.over else 0
        self.x = _places(columns, left, w, tiles.apart_columns)
        self.y = _places(rows, top + self.over_px, h + self.over_px, tiles.apart_rows)
        titled = MARGIN_PX + round(LETTER_PX * 1.1 * _widest([tiles.title]))
        self.width = max(self.x[-1] + w, titled) + MARGIN_PX
        self.height = self.y[-1] + h + MARGIN_PX

    def canvas(self) -> np.ndarray:
        """The pictures in their places, uint8 (height, width, 3)."""
        canvas = np.full((self.height, self.width, 3), 255, dtype=np.uint8)
        large = self.tiles.cells.repeat(self.scale, axis=2).repeat(self.scale, axis=3)
        for row, y in zip(large, self.y, strict=True):
            for picture, x in zip(row, self.x, strict=True):
                canvas[y : y + self.h, x : x + self.w] = picture
        return canvas

    def words(self) -> Iterator[tuple[float, float, str, dict[str, str]]]:
        """Titles of rows, columns and single pictures: x, y, words, alignment."""
        for y, word in zip(self.y, self.tiles.rows, strict=False):
            yield self.x[0] - 8, y + self.h / 2, word, {"ha": "right", "va": "center"}
        for x, word in zip(self.x, self.tiles.columns, strict=False):
            yield x + self.w / 2, self.y[0] - self.over_px - 4, word, {"ha": "center", "va": "bottom"}
        for (row, column), word in self.tiles.over.items():
            yield self.x[column], self.y[row] - 3, word, {"ha": "left", "va": "bottom"}


def _places(n: int, start: int, side: int, apart: frozenset[int]) -> list[int]:
    """Where each of n cells begins."""
    places = [start]
    for i in range(1, n):
        places.append(places[-1] + side + (APART_PX if i in apart else GAP_PX))
    return places


def _widest(words: Sequence[str]) -> int:
    return max((len(line) for word in words for line in word.split("\n")), default=0)


def _lines(words: Sequence[str]) -> int:
    return max((len(word.split("\n")) for word in words), default=0)


@contextlib.contextmanager
def plain(width: float, height: float, layout: str | None = None) -> Iterator[Any]:
    """A white figure of width x height inches, and our style while it is drawn and written."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(STYLE):
        yield Figure(figsize=(width, height), dpi=DPI, layout=layout, facecolor="white")  # type: ignore[arg-type]


def write(figure: Any, out: Path) -> Path:
    """The figure as a PNG, written whole or not at all. Raises BadInput for a place that cannot be written."""
    draft = out.with_name(f".{out.name}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(draft, format="png", dpi=DPI, metadata={"Software": None})
        draft.replace(out)
    except OSError as error:
        raise BadInput(f"{out} cannot be written: {error}") from None
    return out
