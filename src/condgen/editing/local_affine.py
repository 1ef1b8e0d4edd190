"""What may follow a photorealistic transfer: the result as smooth local changes of the photograph's colours, and its grain put back.

    A_i = argmin_A  sum over j near i of |A (I_j, 1) - O_j|^2  +  ridge |A|^2,        A: 3x4, j in the 3x3 window around i
    A'_i = sum_j w_ij A_j / sum_j w_ij,   w_ij = exp(-|i - j|^2 / (2 sigma_s^2) - |I_i - I_j|^2 / (6 sigma_r^2))
    result_i = A'_i (I_i, 1)

I is the photograph, O the transfer's result, both in [0, 1]. The Laplacian asks for a map in
each window by itself, and is obeyed in part; here every pixel has one, and near ones are alike. That takes blotches away, but L_m grows:
maps that change from window to window, as across an edge, are what it counts.
Luan, Paris, Shechtman & Bala 2017, arXiv 1703.07511, released code.
"""

from collections.abc import Callable
from types import EllipsisType

import torch
import torch.nn.functional as F
from torch import Tensor

from condgen.errors import BadInput, require_positive, require_range, require_whole


def smooth_local_affine(
    x: Tensor, content: Tensor, ridge: float = 1e-3, radius: int = 15, sigma_s: float | None = None, sigma_r: float = 0.01
) -> Tensor:
    """The nearest smooth local change of the photograph's colours to a result, (1, 3, h, w) in [-1, 1], clipped.

    Args:
        x: the transfer's result (1, 3, h, w) in [-1, 1].
        content: the photograph, of the same size.
        ridge: keeps the map of a flat window small; in squares of [0, 1], against the sum over 9 pixels.
        radius: of the smoothing, in px; 0 for none.
        sigma_s: its standard deviation in px; a third of the radius by default.
        sigma_r: its standard deviation in each of the three colours, in units of [0, 1]: maps are not mixed across edges.

    Raises:
        BadInput: for pictures of two sizes, or numbers out of range.
    """
    _require_alike(x, content)
    require_positive(ridge=ridge, sigma_r=sigma_r)
    require_whole("radius", radius, 0)
    require_range(0, float("inf"), sigma_s=0 if sigma_s is None else sigma_s)
    guide, seen = ((p.detach().double() + 1) / 2 for p in (content, x))
    maps = _maps(guide, seen.clamp(0, 1), ridge)
    if radius:
        maps = _bilateral(maps, guide, radius, sigma_s or radius / 3, sigma_r)
    applied = torch.einsum("bochw,bchw->bohw", maps.unflatten(1, (3, 4)), _with_one(guide))
    return (2 * applied - 1).clamp(-1, 1).to(x)


def _require_alike(x: Tensor, content: Tensor) -> None:
    if x.shape != content.shape or x.dim() != 4 or x.shape[1] != 3:
        raise BadInput(f"a result of shape {tuple(x.shape)} and a photograph of {tuple(content.shape)}; expected (1, 3, h, w) of both")


def _with_one(guide: Tensor) -> Tensor:
    return torch.cat([guide, torch.ones_like(guide[:, :1])], 1)


def _window_sums(a: Tensor) -> Tensor:
    """(b, n, h, w) -> sums over the 3x3 px around each; beyond the border there is nothing."""
    return F.avg_pool2d(a, 3, 1, 1, divisor_override=1)


def _maps(guide: Tensor, seen: Tensor, ridge: float) -> Tensor:
    """Each pixel's map (b, 12, h, w), row by row."""
    u = _with_one(guide)
    uu = _window_sums(torch.einsum("bchw,bdhw->bcdhw", u, u).flatten(1, 2)).unflatten(1, (4, 4))
    uo = _window_sums(torch.einsum("bchw,bohw->bcohw", u, seen).flatten(1, 2)).unflatten(1, (4, 3))
    normal = uu.permute(0, 3, 4, 1, 2) + ridge * torch.eye(4, dtype=uu.dtype, device=uu.device)
    solved = torch.linalg.solve(normal, uo.permute(0, 3, 4, 1, 2))  # (b, h, w, 4, 3)
    return solved.permute(0, 4, 3, 1, 2).flatten(1, 2)


def _bilateral(maps: Tensor, guide: Tensor, radius: int, sigma_s: float, sigma_r: float) -> Tensor:
    """Mean of the maps around each pixel, the nearer in place and in the guide's colour the more it counts.

    One displacement of the whole picture at a time, in float32: memory is a few pictures' for any radius.
    """
    h, w = guide.shape[-2:]
    rows = torch.cat([maps, torch.ones_like(maps[:, :1])], 1).float()  # the last is the sum of the weights
    guide, total = guide.float(), torch.zeros_like(rows)
    for dy in range(-min(radius, h - 1), min(radius, h - 1) + 1):
        for dx in range(-min(radius, w - 1), min(radius, w - 1) + 1):
            here, there = (_overlap(h, w, sign * dy, sign * dx) for sign in (1, -1))
            apart = (guide[here] - guide[there]).square().mean(1, keepdim=True) / (2 * sigma_r**2)
            weight = torch.exp(-apart - (dy**2 + dx**2) / (2 * sigma_s**2))
            total[here] += weight * rows[there]
    return (total[:, :-1] / total[:, -1:]).double()


def _overlap(h: int, w: int, dy: int, dx: int) -> tuple[slice | EllipsisType, ...]:
    """The pixels that still lie in the picture when moved up by dy and left by dx."""
    return (..., slice(max(0, dy), h + min(0, dy)), slice(max(0, dx), w + min(0, dx)))


def with_grain(x: Tensor, content: Tensor, radius: int = 8, eps: float = 0.01) -> Tensor:
    """Against posterisation, the photograph's own fine detail in place of the result's: J + (I - I_f), clipped. The release's last step.

    J is the result, I_f the photograph, both smoothed by a guided filter whose guide is the photograph.

    Args:
        x: (1, 3, h, w) in [-1, 1].
        content: the photograph, of the same size.
        radius: of the filter's windows, in px.
        eps: variance in squares of [0, 1] below which a window is smoothed.

    Raises:
        BadInput: for pictures of two sizes, or numbers out of range.
    """
    _require_alike(x, content)
    require_whole("radius", radius, 1)
    require_positive(eps=eps)
    guide, seen = ((p.detach().double() + 1) / 2 for p in (content, x))
    found = guided(guide, seen, radius, eps) + guide - guided(guide, guide, radius, eps)
    return (2 * found - 1).clamp(-1, 1).to(x)


def guided(guide: Tensor, x: Tensor, radius: int, eps: float) -> Tensor:
    """The guided filter with a guide of colours: x (b, n, h, w) as an affine function of guide (b, c, h, w) in each window, averaged.

    He, Sun & Tang 2010. A window is the square of `radius` px around a pixel, cut at the border.
    """
    side = 2 * radius + 1

    def mean(a: Tensor) -> Tensor:  # down, then across: 2 sides to add up and not their square
        down = F.avg_pool2d(a, (side, 1), 1, (radius, 0), count_include_pad=False)
        return F.avg_pool2d(down, (1, side), 1, (0, radius), count_include_pad=False)

    guide_mean, x_mean = mean(guide), mean(x)
    c, n = guide.shape[1], x.shape[1]
    covariance = _covariances(guide, guide, guide_mean, guide_mean, mean).unflatten(1, (c, c)).permute(0, 3, 4, 1, 2)
    across = _covariances(guide, x, guide_mean, x_mean, mean).unflatten(1, (c, n)).permute(0, 3, 4, 1, 2)
    slope = torch.linalg.solve(covariance + eps * torch.eye(c, dtype=x.dtype, device=x.device), across).permute(0, 4, 3, 1, 2)
    offset = x_mean - torch.einsum("bnchw,bchw->bnhw", slope, guide_mean)
    smooth = mean(slope.flatten(1, 2)).unflatten(1, (n, c))
    return torch.einsum("bnchw,bchw->bnhw", smooth, guide) + mean(offset)


def _covariances(a: Tensor, b: Tensor, a_mean: Tensor, b_mean: Tensor, mean: Callable[[Tensor], Tensor]) -> Tensor:
    """(b, c d, h, w), of each channel of a with each of b."""
    products = torch.einsum("bchw,bdhw->bcdhw", a, b).flatten(1, 2)
    return mean(products) - torch.einsum("bchw,bdhw->bcdhw", a_mean, b_mean).flatten(1, 2)
