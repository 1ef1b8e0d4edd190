"""A sheet between many pictures (MINE), or around one: its neighbours among the training pictures, laid out by likeness.

White 2016, arXiv 1609.04468. Anchors stand at every `spacing`-th cell, what lies between is decoded from the arcs between them.
"""

import math

import torch
from torch import Tensor

from condgen.conditions import Values
from condgen.editing.grids import mine, nearest, neighbour_grid
from condgen.edits.sheet import Sheet, there_and_back
from condgen.edits.subject import Subject, mixed
from condgen.errors import BadInput, require_whole

LARGEST = 60
"""Cells each way."""


def draw(
    subject: Subject, columns: int | None = None, spacing: int | None = None, neighbours: int | None = None, rows: int | None = None
) -> Sheet:
    """A sheet of anchors and what lies between them.

    Args:
        subject: the anchors, row by row; with `neighbours`, one seed.
        columns: anchors a row; by default about a square.
        spacing: cells from an anchor to the next: by default 4, with `neighbours` 1, where nothing lies between.
        neighbours: so many samples instead: the seed and the training samples whose latents point most nearly the same way.
        rows: training samples that are searched; 4000 by default.

    Raises:
        BadInput: for anchors that fill no rows, several seeds, or a sheet that is too large.
    """
    for option, value, least in (
        ("--columns", columns, 1),
        ("--spacing", spacing, 1),
        ("--neighbours", neighbours, 4),
        ("--rows", rows, 4),
    ):
        if value is not None:
            require_whole(option, value, least, 60000)
    if rows is not None and neighbours is None:
        raise BadInput("--rows says how many training samples are searched for neighbours: give --neighbours, or leave it out")
    rows = 4000 if rows is None else rows
    if neighbours is not None:
        return _around(subject, neighbours, columns, spacing or 1, rows)
    if len(subject) < 2:
        raise BadInput("a sheet between pictures needs at least 2 files; around one picture it is drawn with --neighbours N")
    columns = columns or _columns(len(subject))
    return _sheet(subject, subject.x, subject.z, subject.c, columns, spacing or 4, f"between {len(subject)} pictures")


def _columns(n: int) -> int:
    """The divisor of n that makes the sheet most nearly square, rather wide than high."""
    return min((k for k in range(1, n + 1) if n % k == 0), key=lambda k: (abs(k - n / k), -k))


def _around(subject: Subject, n: int, columns: int | None, spacing: int, rows: int) -> Sheet:
    if len(subject) != 1:
        raise BadInput(f"--neighbours lays out what is near one picture; {len(subject)} files given")
    columns = columns or math.isqrt(n)
    down = n // columns
    if not down:
        raise BadInput(f"--columns {columns} for {n} samples; expected at most {n}")
    x, z, c = _neighbours(subject, down * columns, rows)
    order = neighbour_grid(z, down, columns, subject.manner.seed).flatten()
    told = f"{subject.names[0]} and its {down * columns - 1} nearest training pictures"
    return _sheet(subject, x[order], z[order], {k: v[order] for k, v in c.items()}, columns, spacing, told)


def _neighbours(subject: Subject, n: int, rows: int) -> tuple[Tensor, Tensor, Values]:
    """The seed and the training samples nearest to it by angle: x, z, c of n."""
    data, generator = subject.data(), torch.Generator().manual_seed(subject.manner.seed)
    most = min(rows if subject.encodes else min(rows, 200), len(data))
    if n - 1 > most:
        raise BadInput(f"{n - 1} neighbours of {most} training samples; ask for fewer, or look at more (--rows)")
    batch = data.batch(torch.randperm(len(data), generator=generator)[:most].sort().values)
    c = {k: batch.c[k] for k in subject.model.schema}
    z = subject.latents(batch.x, c)
    near = nearest(subject.z[0], z, n - 1)
    return (
        torch.cat([subject.x, batch.x[near]]),
        torch.cat([subject.z, z[near]]),
        {k: torch.cat([subject.c[k], v[near]]) for k, v in c.items()},
    )


def _sheet(subject: Subject, x: Tensor, anchors: Tensor, c: Values, columns: int, spacing: int, what: str) -> Sheet:
    if len(anchors) % columns:
        raise BadInput(
            f"{len(anchors)} pictures fill no rows of {columns}: give {len(anchors) // columns * columns or columns}, or other --columns"
        )
    down = len(anchors) // columns
    size = [(k - 1) * spacing + 1 for k in (down, columns)]
    if max(size) > LARGEST:
        raise BadInput(
            f"a sheet of {size[0]} x {size[1]} cells; expected at most {LARGEST} each way: fewer pictures, or a smaller --spacing"
        )
    z = mine(anchors.reshape(down, columns, *anchors.shape[1:]), spacing).flatten(0, 1)
    conditions = mixed(subject.model.schema, c, bilinear(down, columns, spacing))
    drawn = subject.decode(z, conditions)
    cells = drawn.reshape(size[0], size[1], *drawn.shape[1:])
    tight = spacing == 1  # nothing lies between: there is room for the originals
    return Sheet(
        x=drawn,
        z=z,
        c=conditions,
        cells=torch.cat([x.reshape(down, columns, *x.shape[1:]), cells], 1) if tight else cells,
        frames=there_and_back(cells)[:, None],
        title=f"{subject.name}: {what}\n"
        + ("left as they are, right as the model sees them" if tight else f"an anchor every {spacing} cells"),
        said=f"a sheet of {size[0]} x {size[1]} {what}",
        apart_columns=frozenset({columns}) if tight else frozenset(),
        bare_columns=size[1],
        told={"rows": size[0], "columns": size[1], "spacing": spacing},
    )


def bilinear(down: int, columns: int, spacing: int) -> Tensor:
    """Weights (cells, anchors) of each anchor in each cell of the sheet, of sum 1."""
    one, other = (_hats(k, spacing) for k in (down, columns))  # (cells each way, anchors each way)
    return torch.einsum("ia,jb->ijab", one, other).reshape(len(one) * len(other), down * columns)


def _hats(anchors: int, spacing: int) -> Tensor:
    places = torch.arange((anchors - 1) * spacing + 1) / spacing
    return (1 - (places[:, None] - torch.arange(anchors)).abs()).clamp(min=0)
