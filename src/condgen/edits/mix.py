"""Style mixing: each picture keeps its layers, but for some that another gives. Karras, Laine & Aila 2019, arXiv 1812.04948, figure 3.

Coarse layers carry pose and shape, fine ones colours. Pictures of a model with an encoder are encoded; for a generator alone, their w+
are found by descent.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from condgen.editing.views import bands, crossed, layers_of, told
from condgen.edits.sheet import Sheet, blank, there_and_back
from condgen.edits.subject import Subject
from condgen.errors import BadInput, require_whole

LETTERS = 8
"""Of a line above a picture of 64 px, as `figures.canvas` writes them."""


def draw(subject: Subject, layers: Sequence[str] = (), sources: int = 1) -> Sheet:
    """A row for each source, a column for each style; such a block of rows for each choice of layers.

    Args:
        subject: two samples or more, in w+. Conditions of what is mixed are the source's.
        layers: what the styles give, as of `views.layers_of`; by default coarse, middle and fine in turn, as far as there are such.
        sources: so many of the samples are sources, the others are styles.

    Raises:
        BadInput: for layers that there are not, no style left, a model of one layer, or another space than w+.
    """
    if len(subject) < 2:
        raise BadInput(f"mix takes a source and at least one style, {len(subject)} picture given")
    require_whole("--sources", sources, 1, len(subject) - 1)
    if subject.latent_space != "w+":
        raise BadInput(f"mix gives single layers another w, which {subject.latent_space} cannot tell: leave out --space, or name w+")
    model: Any = subject.trained
    if len(model.layer_sides) == 1:
        raise BadInput(f"{subject.name} has a single layer: there is nothing to mix; stylegan and stylealae have several")
    blocks = {word: layers_of(model.layer_sides, word) for word in layers or bands(model.layer_sides)}
    z = torch.stack([crossed(subject.z[:sources], subject.z[sources:], chosen) for chosen in blocks.values()])  # (k, s, t, layers, d)
    x, c = _decoded(subject, z)
    shown = x.reshape(*z.shape[:3], *x.shape[1:])
    words = [_words(word, chosen, model.layer_sides) for word, chosen in blocks.items()]
    return Sheet(
        x=x,
        z=z.flatten(0, 2),
        c=c,
        cells=_cells(subject, shown),
        frames=there_and_back(shown.flatten(0, 1))[:, None],
        title=f"{subject.name}: each row's picture, with the named layers of its column's",
        said=f"{len(x)} mixed: " + "; ".join(words),
        rows=["given", "as the\nmodel sees it", *(f"{name}\nwith {word}" for word in blocks for name in subject.names[:sources])],
        columns=["given", "as the\nmodel\nsees it", *(folded(name) for name in subject.names[sources:])],
        apart_rows=frozenset(range(2, 2 + len(blocks) * sources, sources)),
        apart_columns=frozenset({2}),
        bare_columns=len(subject) - sources,
        told={"layers": blocks, "rows": len(blocks) * sources, "columns": len(subject) - sources},
    )


def _decoded(subject: Subject, z: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Samples of (k, sources, styles, layers, d), one after another, under their sources' conditions."""
    blocks, sources, styles = z.shape[:3]
    c = {k: v[:sources].repeat_interleave(styles, 0).repeat(blocks, *[1] * (v.dim() - 1)) for k, v in subject.c.items()}
    return subject.decode(z.flatten(0, 2), c), c


def _cells(subject: Subject, shown: Tensor) -> Tensor:
    """Above the mixed (k, sources, styles, *shape) the styles, left of them the sources: as given, and as the model sees them."""
    blocks, sources = shown.shape[:2]
    ends = torch.stack([subject.x, subject.decode(subject.z, subject.c)])  # (2, n, *shape)
    left = ends[:, :sources].transpose(0, 1).repeat(blocks, *[1] * (ends.dim() - 1))  # (k sources, 2, *shape)
    above = torch.cat([blank(ends[:, :1]).expand(2, 2, *ends.shape[2:]), ends[:, sources:]], 1)
    return torch.cat([above, torch.cat([left, shown.flatten(0, 1)], 1)])


def folded(name: str) -> str:
    """A name in lines that fit above a picture.

    >>> folded("holiday-in-rome.jpg")
    'holiday-\\nin-rome.\\njpg'
    """
    return "\n".join(name[i : i + LETTERS] for i in range(0, len(name), LETTERS))


def _words(word: str, layers: Sequence[int], sides: Sequence[int]) -> str:
    """A choice of layers with what it comes to."""
    numbers = "" if word == told(layers) else f" (layers {told(layers)})"
    return f"{word}{numbers} of {', '.join(map(str, sorted({sides[i] for i in layers})))} px"
