"""One attribute moved from low to high, all else fixed: what the model has understood of it.

Gauthier 2014's axis protocol for an unnamed axis: the latent stays, the axis moves from 3.75 below to 3.75 above its value.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condgen.conditions import Attributes, Schema, Values
from condgen.errors import BadInput, require_whole
from condgen.figures.canvas import Tiles, colours, draw_tiles
from condgen.figures.subject import attributes_of, axes_of, known, painter, preferred

DEFAULTS = ("smiling", "mouth_slightly_open", "young", "eyeglasses", "male")
"""Among them the lecture's pair: an open mouth, and senior, which is young from high to low."""
REACH = 3.75
"""How far an axis of a vector is moved each way, in its own units."""


def draw(out: Path, run: str, attributes: Sequence[str] = (), n: int = 8, steps: int = 5, seed: int = 0) -> Path:
    """A block of rows an attribute, a row a value, a column a latent with its other conditions.

    Args:
        out: a PNG.
        run: of a model that reads attributes or a vector.
        attributes: names, or such as look.3 for the third axis of the vector `look`; by default a few that read well.
        n: columns.
        steps: values from the attribute's lowest in the data to its highest.
        seed: of latents and of the other conditions.

    Raises:
        BadInput: for an attribute that the model does not know.
    """
    require_whole("-n", n, 1, 64)
    require_whole("--steps", steps, 2, 64)
    require_whole("--seed", seed, 0)
    model = painter(run)
    named, axes = attributes_of(model), axes_of(model)
    if not named and not axes:
        raise BadInput(f"{run} reads no attributes and no vector, so nothing can be shifted: try the figure `named`")
    chosen = known(attributes, [*named, *axes]) or (preferred(named, DEFAULTS, len(DEFAULTS)) if named else list(axes)[:3])
    blocks = [_attribute(model, a, *named[a], n, steps, seed) if a in named else _axis(model, a, n, steps, seed) for a in chosen]
    cells = colours(torch.cat([x for x, _ in blocks]))
    names = [name for _, row_names in blocks for name in row_names]
    title = f"{Path(run).name}: one attribute moved, the latent and all other conditions fixed down a column"
    apart = frozenset(range(steps, len(names), steps))
    return draw_tiles(Tiles(cells.reshape(len(names), n, *cells.shape[1:]), title, names, apart_rows=apart), out)


def _attribute(model: Any, name: str, low: float, high: float, n: int, steps: int, seed: int) -> tuple[Tensor, list[str]]:
    """Samples (steps * n, c, h, w) row by row, and the rows' names."""
    values = torch.linspace(low, high, steps).tolist()
    base = model.completed({}, n, seed)  # asked by its name alone, the attribute would bring rows that agree with it
    x = [model.sample(placed(base, model.schema, name, v), n=n, seed=seed).cpu() for v in values]
    return torch.cat(x), [f"{name} {v:.2f}" for v in values]


def _axis(model: Any, name: str, n: int, steps: int, seed: int) -> tuple[Tensor, list[str]]:
    condition, axis = axes_of(model)[name]
    base = model.completed({}, n, seed)
    shifts = torch.linspace(-REACH, REACH, steps).tolist()
    x = [model.sample(shifted(base, condition, axis, s), n=n, seed=seed).cpu() for s in shifts]
    return torch.cat(x), [f"{name} {s:+.2f}" for s in shifts]


def placed(values: Values, schema: Schema, name: str, at: float) -> Values:
    """The values with one named attribute set, and no other changed."""
    condition = next(k for k, c in schema.items() if isinstance(c, Attributes) and name in c.names)
    moved = values[condition].clone()
    moved[:, schema[condition].names.index(name)] = at  # type: ignore[attr-defined]
    return {**values, condition: moved}


def shifted(values: Values, condition: str, axis: int, by: float) -> Values:
    """The values with one axis of one vector moved."""
    moved = values[condition].clone()
    moved[:, axis] += by
    return {**values, condition: moved}
