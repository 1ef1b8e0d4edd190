"""What an edit leaves: a picture with titles, a bare one, or a film; and its latents."""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from condgen.conditions import Values
from condgen.data import video
from condgen.editing.pictures import write_latents
from condgen.editing.views import has_styles
from condgen.edits import KINDS
from condgen.edits.subject import Subject
from condgen.errors import BadInput
from condgen.evaluation.grids import grid, png
from condgen.figures.canvas import Tiles, colours, draw_tiles

FILM_PX = 384
"""A film's pictures are enlarged until its smaller side has about so many px."""
SAMPLE = "weights.npy"
"""By this member an .npz of ours is known."""


@dataclass(frozen=True)
class Sheet:
    """The edited samples, and how they are shown.

    Args:
        x, z, c: the edited samples (n, *shape), their latents (n, ...) and conditions.
        cells: what a picture shows, (rows, columns, *shape): originals beside edits.
        frames: what a film shows: (t, k, *shape), k pictures beside each other at each time.
        title, rows, columns, apart_rows, apart_columns: as of `figures.canvas.Tiles`.
        bare_columns: of x, where it is written bare.
        told: numbers for a program.
        said: the same in a line or a few.
    """

    x: Tensor
    z: Tensor
    c: Values
    cells: Tensor
    frames: Tensor
    title: str
    said: str
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()
    apart_rows: frozenset[int] = frozenset()
    apart_columns: frozenset[int] = frozenset()
    bare_columns: int | None = None
    told: Mapping[str, Any] = field(default_factory=dict)


class Place(NamedTuple):
    """Where the picture goes, and the latents; both the same where only these are wanted."""

    out: Path
    latents: Path


def check_place(out: Path, latents: Path | None, files: Sequence[str | Path]) -> Place:
    """Raises BadInput, before anything is computed, for an ending that means nothing, and for a file that must not be replaced."""
    if out.suffix not in KINDS:
        raise BadInput(f"{out}: the ending decides what is written: .png for a picture, .mp4 for a film, .npz for latents alone")
    if latents is not None and latents.suffix != ".npz":
        raise BadInput(f"{latents}: latents are written as .npz")
    place = Place(out, latents or out.with_suffix(".npz"))
    own = {Path(str(f).rpartition(".npz:")[0] + ".npz" if ".npz:" in str(f) else f).resolve() for f in files}
    for path in place:
        if path.resolve() in own:
            raise BadInput(f"{path} is one of the files to be edited; write to another, by --out and --latents")
    if latents is None and out.suffix != ".npz" and place.latents.exists() and not _is_ours(place.latents):
        raise BadInput(f"the latents would replace {place.latents}, which no edit has written; say where they go: --latents FILE.npz")
    if out.suffix == ".mp4":
        video.opencv()  # said before the work, where it is missing
    return place


def _is_ours(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return SAMPLE in archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return False


def check_kind(subject: Subject, out: Path) -> None:
    """Raises BadInput where samples of this model cannot be shown as asked."""
    if out.suffix != ".npz" and len(subject.model.shape) != 3:
        raise BadInput(f"{subject.name} makes points of shape {tuple(subject.model.shape)}, which {out} cannot show; write them to an .npz")


def write(sheet: Sheet, subject: Subject, place: Place, bare: bool, fps: int) -> None:
    """The latents, and the picture or film. Raises BadInput for a place that cannot be written."""
    space = subject.latent_space if has_styles(subject.trained) else None
    write_latents(place.latents, subject.trained, sheet.x, sheet.z, sheet.c, space)
    if place.out.suffix == ".mp4":
        write_film(sheet.frames, place.out, fps)
    elif place.out.suffix == ".png":
        _write_bare(sheet, place.out) if bare else _write_titled(sheet, place.out)


def _write_titled(sheet: Sheet, out: Path) -> None:
    rows, columns = sheet.cells.shape[:2]
    shown = colours(sheet.cells.flatten(0, 1))
    cells = shown.reshape(rows, columns, *shown.shape[1:])
    draw_tiles(Tiles(cells, sheet.title, sheet.rows, sheet.columns, {}, sheet.apart_rows, sheet.apart_columns), out)


def _write_bare(sheet: Sheet, out: Path) -> None:
    """Pixel for pixel, without a rim: one picture is just that."""
    _replace(out, png(grid(sheet.x, sheet.bare_columns)))


def _replace(out: Path, content: bytes) -> None:
    draft = out.with_name(f".{out.name}.part")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(content)
        draft.replace(out)
    except OSError as error:
        raise BadInput(f"{out} cannot be written: {error}") from None


# --- films ----------------------------------------------------------------------------------------------------------------


def write_film(frames: Tensor, out: Path, fps: int) -> None:
    """Pictures (t, k, c, h, w) in [-1, 1], k beside each other, as an .mp4, written whole or not at all."""
    video.write(out, (_framed(frame) for frame in frames), fps)


def _framed(pictures: Tensor) -> np.ndarray:
    """One frame, uint8 (H, W, 3)."""
    sheet = grid(pictures.nan_to_num())
    sheet = np.repeat(sheet, 3, 2) if sheet.shape[2] == 1 else sheet
    scale = max(1, round(FILM_PX / min(sheet.shape[:2])))
    return sheet.repeat(scale, 0).repeat(scale, 1)


# --- what the verbs share ---------------------------------------------------------------------------------------------------


def blank(like: Tensor) -> Tensor:
    """White paper of the shape of a sample."""
    return torch.ones_like(like)


def there_and_back(cells: Tensor) -> Tensor:
    """The cells of a sheet (rows, columns, ...) in the order of one walk: right, a step down, left: (rows * columns, ...)."""
    return torch.cat([row.flip(0) if i % 2 else row for i, row in enumerate(cells)])


def rows_by_columns(word: str, option: str = "--grid") -> tuple[int, int]:
    """ "5x7" as (5, 7). Raises BadInput for anything else.

    >>> rows_by_columns("5x7")
    (5, 7)
    """
    parts = word.lower().split("x")
    if len(parts) != 2 or not all(p.isdigit() and 2 <= int(p) <= 64 for p in parts):
        raise BadInput(f"{option} {word}: expected ROWSxCOLUMNS, such as 5x7, from 2 to 64 each")
    return int(parts[0]), int(parts[1])
