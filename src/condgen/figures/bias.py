"""What goes with an attribute in the data goes with its vector: the same faces moved by the raw one, and by the balanced one.

White 2016, arXiv 1609.04468. In the lecture's table 17 % of the faces are male and smile, 31 % smile and are not, 25 and 27 % do not
smile. A vector that is the difference of two means then takes along some of the other attribute; weights by which all four
combinations count the same take it out. How much of it is seen after the move is what the judge says, who was trained on the data.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from condgen import api
from condgen.conditions import Attributes, Schema
from condgen.data.splits import parse_split
from condgen.data.store import Batch, Dataset
from condgen.editing.attributes import AttributeVector, attribute_vectors, cells, cuts_of, shift
from condgen.editing.space import Space, require
from condgen.errors import BadInput, require_whole
from condgen.evaluation.attributes import FITTED
from condgen.evaluation.judge import Judge, judge_for
from condgen.evaluation.measuring import some_rows
from condgen.figures.canvas import DPI, MARGIN_PX, Layout, Tiles, colours, plain, write
from condgen.figures.subject import known, pictures_of, preferred, run_of

PAIR = ("smiling", "male")
LECTURE: dict[tuple[bool, ...], float] = {(True, True): 0.17, (True, False): 0.31, (False, True): 0.25, (False, False): 0.27}
"""(smiling, male) -> share, as the lecture prints it."""
MOVED = 500
"""Test rows without the attribute, at most, that the judge sees moved."""
TABLE_PX, MONO_PX = 92, 7.3
"""Height of the strip of tables, and width of a letter in it."""


class Moved(NamedTuple):
    """Pictures (n, c, h, w) of moved latents, and by how much the judge reads more of the attribute and of the other one."""

    x: Tensor
    attribute: float
    other: float


def draw(out: Path, run: str, attributes: Sequence[str] = (), n: int = 10, amount: float = 1.5, seed: int = 0) -> Path:
    """Three rows of faces that lack the attribute: decoded as they are, with the raw vector added, with the balanced one.

    Args:
        out: a PNG.
        run: of a model that encodes and decodes pictures, whose data have two attributes and a test split.
        attributes: the one that is moved and the one that may come along, by default a smile and the sex.
        n: faces.
        amount: of the vector.
        seed: chooses the faces.

    Raises:
        BadInput: for a model or data without that, other than two attributes, and two of which no row has some combination.
    """
    require_whole("-n", n, 1, 32)
    require_whole("--seed", seed, 0)
    model = api.load(run)
    require(model, "encode", "decode")
    told = run_of(model, run)
    train, test = (pictures_of(model, told, split) for split in (parse_split(told.split)[0], "test"))
    if len(model.shape) != 3:
        raise BadInput(f"{run} draws points of shape {tuple(model.shape)}; this figure is made of pictures")
    key, names = pair_of(train.schema, attributes, told.data)
    rows, flags = flagged(train, key, names, FITTED)
    z = Space(model).encode(rows.x, rows.c)
    vectors = [attribute_vectors(z, flags, names, balance)[names[0]] for balance in ((), names)]
    faces = _without(test, key, names, seed)
    before, moves = moved(Space(model), faces, vectors, amount, judge_for(train, test), key, names)
    shown = colours(torch.cat([x[:n] for x in (before, *(move.x for move in moves))]))
    titles = ["decoded", *(_said(word, move, names) for word, move in zip(("raw", "balanced"), moves, strict=True))]
    head = (
        f"{Path(run).name}: {amount:g} times the vector of {names[0]!r}; beside it, how much more the judge sees ({len(faces.x)} test rows)"
    )
    tiles = Tiles(shown.reshape(3, -1, *shown.shape[1:]), head, titles)
    return _drawn(tiles, [_table("training rows", cells(flags), names), _table("the lecture", LECTURE, list(PAIR))], out)


def pair_of(schema: Schema, asked: Sequence[str], data: str) -> tuple[str, list[str]]:
    """The condition, and two of its attributes. Raises BadInput for data that have none."""
    found = {key: kind for key, kind in schema.items() if isinstance(kind, Attributes) and len(kind.names) >= 2}
    if not found:
        have = ", ".join(f"{key} ({type(kind).__name__})" for key, kind in schema.items()) or "no conditions"
        raise BadInput(f"this figure needs data with two attributes (numbers or 0 and 1, by name), as lfw64 has; {data} has {have}")
    key = next((key for key, kind in found.items() if set(asked) <= set(kind.names)), next(iter(found)))
    kind = found[key]
    names = known(asked, kind.names) or preferred(kind.names, PAIR, 2)
    if len(names) == 1 and not asked:
        names.append(next(name for name in kind.names if name not in names))
    if len(names) != 2:
        raise BadInput(f"{len(names)} attributes given; this figure is of two: the one that is moved, and the one that comes along")
    return key, names


def flagged(data: Dataset, key: str, names: Sequence[str], most: int) -> tuple[Batch, Tensor]:
    """Up to so many rows of which both attributes are known, and who has which, bool (n, 2)."""
    kind = data.schema[key]
    assert isinstance(kind, Attributes)
    columns = [kind.names.index(name) for name in names]
    values = data.values()[key]
    rows = (~values[:, columns].isnan().any(1)).nonzero().flatten()
    rows = rows[some_rows(len(rows), most)]
    return data.batch(rows), (values[rows] > cuts_of(values, kind))[:, columns]


def _without(test: Dataset, key: str, names: Sequence[str], seed: int) -> Batch:
    """Test rows that lack the first attribute, in an order that the seed chooses."""
    rows, flags = flagged(test, key, names, len(test))
    lacking = (~flags[:, 0]).nonzero().flatten()
    if not len(lacking):
        raise BadInput(f"every test row has {names[0]!r}: there is none to give it to")
    order = lacking[torch.randperm(len(lacking), generator=Generator().manual_seed(seed))][:MOVED]
    return Batch(rows.x[order], {name: value[order] for name, value in rows.c.items()})


def moved(
    space: Space, faces: Batch, vectors: Sequence[AttributeVector], amount: float, judge: Judge, key: str, names: Sequence[str]
) -> tuple[Tensor, list[Moved]]:
    """The faces decoded as they are, and moved along each vector."""
    z = space.encode(faces.x, faces.c)
    before = space.decode(z, faces.c)
    kind = judge.schema[key]
    assert isinstance(kind, Attributes)
    columns = [kind.names.index(name) for name in names]
    seen, moves = judge.predict(before, key)[:, columns], []
    for vector in vectors:
        x = space.decode(shift(z, vector, amount), faces.c)
        change = (judge.predict(x, key)[:, columns] - seen).double().mean(0).tolist()
        moves.append(Moved(x, *change))
    return before, moves


def _said(word: str, move: Moved, names: Sequence[str]) -> str:
    return f"{word}\n{names[0]} {move.attribute:+.2f}\n{names[1]} {move.other:+.2f}"


def _table(title: str, shares: dict[tuple[bool, ...], float], names: Sequence[str]) -> str:
    """Two by two with its margins, in letters of one width."""
    first, second = (" ".join(name.split("_")) for name in names)
    lead = max(len(title), len(first) + 4)
    heads = [second, f"not {second}", "total"]
    lines = [title.ljust(lead) + "".join(f"  {head}" for head in heads)]
    for some in (True, False):
        row = [shares[some, True], shares[some, False], shares[some, True] + shares[some, False]]
        lines.append((first if some else f"not {first}").ljust(lead) + _shares(row, heads))
    totals = [shares[True, some] + shares[False, some] for some in (True, False)]
    return "\n".join([*lines, "total".ljust(lead) + _shares(totals, heads)])


def _shares(row: Sequence[float], heads: Sequence[str]) -> str:
    return "".join(f"  {share:{len(head)}.0%}" for share, head in zip(row, heads, strict=False))


def _drawn(tiles: Tiles, tables: Sequence[str], out: Path) -> Path:
    """The tables above the tiles, whose pixels stay squares."""
    layout = Layout(tiles)
    starts = [MARGIN_PX]
    for table in tables:
        starts.append(starts[-1] + round(MONO_PX * (len(table.split("\n")[0]) + 6)))
    width, height = max(layout.width, starts[-1]), layout.height + TABLE_PX
    with plain(width / DPI, height / DPI) as figure:
        axis = figure.add_axes((0, 0, 1, 1))
        canvas = layout.canvas()
        axis.imshow(canvas, interpolation="nearest", extent=(0, layout.width, height, TABLE_PX), aspect="auto")
        axis.set(xlim=(0, width), ylim=(height, 0))
        axis.axis("off")
        for x, table in zip(starts, tables, strict=False):
            axis.text(x, MARGIN_PX, table, va="top", fontsize=9, family="monospace", linespacing=1.35)
        _words(axis, layout, tiles.title)
        return write(figure, out)


def _words(axis: Any, layout: Layout, title: str) -> None:
    axis.text(MARGIN_PX, MARGIN_PX + TABLE_PX, title, va="top", fontsize=10)
    for x, y, word, how in layout.words():
        axis.text(x, y + TABLE_PX, word, fontsize=9, linespacing=1.1, **how)
