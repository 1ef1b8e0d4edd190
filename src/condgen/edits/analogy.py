"""A is to B as C is to what? The fourth corner, B + C - A, and the J-diagram of all that lies between.

White 2016, arXiv 1609.04468: the three that were given stand outside of the corners, beside their reconstructions.
"""

import torch
from torch import Tensor

from condgen.editing.grids import j_diagram
from condgen.editing.latent import analogy
from condgen.edits.sheet import Sheet, blank, rows_by_columns, there_and_back
from condgen.edits.subject import Subject, mixed


def draw(subject: Subject, grid: str | None = None, renorm: bool = False) -> Sheet:
    """The answer beside the three; with `grid`, the diagram.

    Args:
        subject: three samples, A, B and C. The answer has C's conditions.
        grid: "ROWSxCOLUMNS", A in the upper left corner, B upper right, C lower left.
        renorm: bring the answer to the mean norm of the three latents.
    """
    return _diagram(subject, *rows_by_columns(grid), renorm) if grid else _answer(subject, renorm)


def _answer(subject: Subject, renorm: bool) -> Sheet:
    a, b, c = subject.z
    z, conditions = analogy(a[None], b[None], c[None], renorm), subject.conditions(2)
    x = subject.decode(z, conditions)
    own = subject.decode(subject.z, subject.c)
    cells = torch.stack([torch.cat([subject.x, blank(x)]), torch.cat([own, x])])
    titles = ["A", "is to B", "as C", "is to"]
    names = [f"{title}\n{name}" for title, name in zip(titles, [*subject.names, ""], strict=True)]
    said = f"{subject.names[0]} is to {subject.names[1]} as {subject.names[2]} is to the answer"
    frames = torch.cat([subject.x, x])[:, None]
    shown = {"rows": ["given", "as the\nmodel sees it"], "columns": names, "apart_columns": frozenset({2})}
    return Sheet(x, z, conditions, cells, frames, f"{subject.name}: an analogy", said, **shown)  # type: ignore[arg-type]


def _diagram(subject: Subject, rows: int, columns: int, renorm: bool) -> Sheet:
    a, b, third = subject.z
    z = j_diagram(a, b, third, rows, columns, renorm)
    c = mixed(subject.model.schema, subject.c, corners(rows, columns))
    x = subject.decode(z.flatten(0, 1), c)
    shown = x.reshape(rows, columns, *x.shape[1:])
    return Sheet(
        x=x,
        z=z.flatten(0, 1),
        c=c,
        cells=shouldered(shown, subject.x),
        frames=there_and_back(shown)[:, None],
        title=f"{subject.name}: {subject.names[0]} is to {subject.names[1]} as {subject.names[2]} is to the lower right",
        said=f"a J-diagram of {rows} x {columns} samples",
        apart_columns=frozenset({1, columns + 1}),
        bare_columns=columns,
        told={"rows": rows, "columns": columns},
    )


def corners(rows: int, columns: int) -> Tensor:
    """Weights (rows * columns, 3) of A, B and C in each cell; the fourth corner is C's."""
    down, right = torch.meshgrid(torch.linspace(0, 1, rows), torch.linspace(0, 1, columns), indexing="ij")
    weights = torch.stack([(1 - down) * (1 - right), (1 - down) * right, down], -1)
    return weights.reshape(-1, 3)


def shouldered(shown: Tensor, given: Tensor) -> Tensor:
    """A sheet (rows, columns, *shape) with a column more on each side: A, B and C (3, *shape) stand beside their corners."""
    left, right = (blank(shown[:, :1]).clone() for _ in range(2))
    left[0, 0], right[0, 0], left[-1, 0] = given[0], given[1], given[2]
    return torch.cat([left, shown, right], 1)
