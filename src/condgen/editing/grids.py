"""Latents in rows and columns: J-diagrams, MINE grids and their neighbour form, and two attributes moved apart.

White 2016, arXiv 1609.04468. MINE is his "manifold interpolated neighbor embedding", not an estimator of information. Every grid is
(rows, columns, *latent), to be decoded row by row; latents may have any number of dimensions.
"""

import torch
from torch import Tensor

from condgen.editing.latent import analogy, angle, slerp
from condgen.errors import BadInput, require_whole

PERPLEXITY = 4.0
"""Of t-SNE: neighbours that a latent keeps near; White's."""
RATE = 100.0
"""t-SNE's learning rate; White's."""


def j_diagram(a: Tensor, b: Tensor, c: Tensor, rows: int, columns: int, renorm: bool = False) -> Tensor:
    """An analogy with all that lies between: a in the upper left corner, b upper right, c lower left, c + b - a lower right.

    The left and right edges are walked by slerp, then each row from edge to edge.

    Args:
        a, b, c: (*latent), of the three pictures that are given.
        rows, columns: at least 2 each.
        renorm: bring the fourth corner to the mean norm of the three, as `analogy` does.

    Returns:
        (rows, columns, *latent); the corners are exact.

    Raises:
        BadInput: for latents of different shapes, or a grid without an inside edge.
    """
    require_whole("rows", rows, 2)
    require_whole("columns", columns, 2)
    for z in (b, c):
        if z.shape != a.shape or not a.dim():
            raise BadInput(f"latents of shape {tuple(a.shape)} and {tuple(z.shape)}: expected three of (d,), the same")
    d = analogy(a[None], b[None], c[None], renorm)[0]
    corners = torch.stack([torch.stack([a, b]), torch.stack([c, d])])
    return _between(_between(corners, rows - 1, 0), columns - 1, 1)


def mine(anchors: Tensor, spacing: int) -> Tensor:
    """Anchors at every so many-th cell, unchanged; between them slerp, along the rows of anchors first, then down every column.

    Args:
        anchors: (r, k, *latent).
        spacing: cells from an anchor to the next.

    Returns:
        ((r - 1) spacing + 1, (k - 1) spacing + 1, *latent).

    Raises:
        BadInput: for anchors that are no grid, or a spacing below 1.
    """
    if anchors.dim() < 3 or 0 in anchors.shape:
        raise BadInput(f"anchors of shape {tuple(anchors.shape)}; expected a grid of latents, (r, k, d)")
    require_whole("spacing", spacing, 1)
    return _between(_between(anchors, spacing, 1), spacing, 0)


def _between(grid: Tensor, spacing: int, dim: int) -> Tensor:
    """The grid with spacing - 1 new cells between any two neighbours along one of its two dimensions."""
    lines = grid.transpose(0, dim)  # (m, o, *latent): o lines, walked at once
    places = torch.arange(spacing, dtype=torch.float64)[:, None] / spacing
    parts = [_walk(one, other, places) for one, other in zip(lines, lines[1:], strict=False)]
    return torch.cat([*parts, lines[-1:]]).transpose(0, dim)


def _walk(one: Tensor, other: Tensor, places: Tensor) -> Tensor:
    """(spacing, o, *latent)."""
    return slerp(one, other, places).reshape(len(places), *one.shape)


def nearest(z_seed: Tensor, z: Tensor, n: int) -> Tensor:
    """The n latents that point most nearly the same way, the nearest first: indices int64 (n,) into z.

    Args:
        z_seed: (*latent).
        z: (m, *latent); the seed itself comes first if it is among them.
        n: from 1 to m.

    Raises:
        BadInput: for another shape or number.
    """
    if z.dim() < 2 or z_seed.shape != z.shape[1:]:
        raise BadInput(f"a seed of shape {tuple(z_seed.shape)} among latents {tuple(z.shape)}: expected (d,) and (m, d)")
    require_whole("n", n, 1, len(z))
    return angle(z_seed.expand_as(z), z).argsort(stable=True)[:n]


def neighbour_grid(z: Tensor, rows: int, columns: int, seed: int = 0) -> Tensor:
    """Which latent stands in which cell, so that neighbours in the latent space are neighbours on the sheet.

    The cloud is laid flat by exact t-SNE, from its first two principal components, then assigned to the cells so that the sum of
    squared ways is least (scipy's `linear_sum_assignment`).

    Args:
        z: (rows * columns, *latent), as of `nearest`.
        rows, columns: of the sheet.
        seed: of t-SNE.

    Returns:
        indices int64 (rows, columns), each of them once.

    Raises:
        BadInput: where there is not one latent for each cell.
    """
    from scipy.optimize import linear_sum_assignment

    require_whole("rows", rows, 1)
    require_whole("columns", columns, 1)
    require_whole("seed", seed, 0, 2**32 - 1)
    if z.dim() < 2 or len(z) != rows * columns:
        raise BadInput(f"{len(z)} latents for {rows} x {columns} cells: expected one each")
    sheet = _in_unit(_flat_cloud(z.flatten(1).double(), seed))
    down, across = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    cells = _in_unit(torch.stack([down.flatten(), across.flatten()], 1).double())
    which, cell = linear_sum_assignment((sheet[:, None] - cells).square().sum(2).numpy())
    found = torch.empty(len(z), dtype=torch.int64)
    found[torch.from_numpy(cell)] = torch.from_numpy(which)
    return found.reshape(rows, columns)


def _flat_cloud(z: Tensor, seed: int) -> Tensor:
    """Latents (n, d) in the plane, (n, 2): by t-SNE, or by the first two principal components of three or fewer."""
    from sklearn.manifold import TSNE

    plane = _principal(z - z.mean(0))
    if len(z) <= 3 or float(plane[:, 0].std()) == 0:
        return plane
    start = (1e-4 * plane / plane[:, 0].std(correction=0)).float().numpy()  # as sklearn scales its own; ours also takes d = 1
    perplexity = min(PERPLEXITY, (len(z) - 1) / 2)
    tsne = TSNE(2, perplexity=perplexity, init=start, learning_rate=RATE, method="exact", random_state=seed)
    return torch.from_numpy(tsne.fit_transform(z.numpy())).double()


def _principal(centred: Tensor) -> Tensor:
    """The first two principal components (n, 2); of one dimension, the second is 0."""
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    u = u * torch.where(u.gather(0, u.abs().argmax(0)[None]) < 0, -1.0, 1.0)  # the sign is anyone's: the largest entry upwards
    return torch.nn.functional.pad((u * s)[:, :2], (0, max(0, 2 - u.shape[1])))


def _in_unit(points: Tensor) -> Tensor:
    """Each column from 0 to 1; one that is all the same to the middle."""
    low, reach = points.amin(0), points.amax(0) - points.amin(0)
    return torch.where(reach > 0, (points - low) / reach.where(reach > 0, 1.0), 0.5)


def decoupled(z: Tensor, v: Tensor, w: Tensor, rows: int, columns: int, low: float = -1.0, high: float = 1.0) -> Tensor:
    """One latent moved along two attribute vectors apart: v across, w down, each from `low` to `high` times itself.

    White's figure 7 has a smile across and an open mouth down. Two vectors that are not orthogonal are moved as they are.

    Args:
        z: (*latent).
        v, w: (*latent), such as `AttributeVector.direction`.
        rows, columns: of the grid; a single one stands at `low`.
        low, high: how much of v stands in the first and the last column, of w in the first and the last row.

    Returns:
        (rows, columns, *latent).

    Raises:
        BadInput: for vectors of another shape than z.
    """
    require_whole("rows", rows, 1)
    require_whole("columns", columns, 1)
    if not v.shape == w.shape == z.shape:
        raise BadInput(f"vectors of shape {tuple(v.shape)} and {tuple(w.shape)} for a latent of {tuple(z.shape)}")
    down, across = (torch.linspace(low, high, k, dtype=torch.float64).reshape(-1, *[1] * z.dim()) for k in (rows, columns))
    return (z.double() + across[None] * v.double() + down[:, None] * w.double()).to(z.dtype)
