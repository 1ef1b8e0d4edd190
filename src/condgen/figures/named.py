"""What can be asked by name: each attribute low and high under the same latents, or each class a row.

It asks as a person does, so the halves differ in more than the attribute (`asking.agreeing`); the figure `shift` moves it alone.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from condgen.conditions import Label
from condgen.errors import BadInput, require_whole
from condgen.figures.canvas import Tiles, colours, draw_tiles
from condgen.figures.subject import Words, attributes_of, in_words, known, painter, preferred

READABLE = ("smiling", "male", "young", "eyeglasses", "blond_hair", "mouth_slightly_open", "mustache", "bald", "goatee")
MOST_ATTRIBUTES, MOST_CLASSES = 8, 20


def draw(out: Path, run: str, asked: Words = (), attributes: Sequence[str] = (), n: int = 5, seed: int = 0) -> Path:
    """A row an attribute: n samples asked low, the same n asked high. For a model of labels a row a class, 2 n samples.

    Args:
        out: a PNG.
        run: of a model that reads attributes or labels.
        asked: what all samples are asked for besides.
        attributes: which, by default up to eight that a reader can see.
        n: samples of each half.
        seed: of latents and of what is left open.

    Raises:
        BadInput: for an attribute that the model does not know, or a model that reads none and no labels.
    """
    require_whole("-n", n, 1, 32)
    require_whole("--seed", seed, 0)
    model = painter(run)
    words = dict(in_words(model, asked))
    ranges = {k: v for k, v in attributes_of(model).items() if k not in words}
    if ranges or attributes:
        return _attributes(model, run, words, known(attributes, ranges) or preferred(ranges, READABLE, MOST_ATTRIBUTES), n, seed, out)
    labels = {k: c for k, c in model.schema.items() if isinstance(c, Label) and k not in words}
    if not labels:
        raise BadInput(f"{run} reads no attribute or label that is not --set already: nothing is left to be named")
    return _classes(model, run, words, *next(iter(labels.items())), 2 * n, seed, out)


def _attributes(model: Any, run: str, words: dict[str, Any], names: list[str], n: int, seed: int, out: Path) -> Path:
    ranges = attributes_of(model)
    x = [model.sample({**words, a: v}, n=n, seed=seed).cpu() for a in names for v in ranges[a]]
    columns = ["asked low" if i == (n - 1) // 2 else "asked high" if i == n + (n - 1) // 2 else "" for i in range(2 * n)]
    cells = colours(torch.cat(x))
    title = (
        f"{Path(run).name}: each attribute asked low and high, the same latents in both halves.\n"
        "What is left open comes from rows that agree with what is asked: other conditions differ too."
    )
    shaped = cells.reshape(len(names), 2 * n, *cells.shape[1:])
    rows = [f"{a}\n{ranges[a][0]:.3g} | {ranges[a][1]:.3g}" for a in names]
    return draw_tiles(Tiles(shaped, title, rows, columns, apart_columns=frozenset({n})), out)


def _classes(model: Any, run: str, words: dict[str, Any], key: str, label: Label, n: int, seed: int, out: Path) -> Path:
    names = label.names[:MOST_CLASSES]
    cells = colours(torch.cat([model.sample({**words, key: name}, n=n, seed=seed).cpu() for name in names]))
    title = f"{Path(run).name}: each {key} by name, the same latents down a column"
    return draw_tiles(Tiles(cells.reshape(len(names), n, *cells.shape[1:]), title, names), out)
