"""The matting Laplacian of a photograph: which changes of colour keep it a photograph.

    L_m = sum over channels of v^T M v                                        v: the channel's pixels in [0, 1]

v^T M v is 0 exactly where, in every 3x3 window, v is an affine function of the photograph's own colours there. An entry of M, for
pixels i and j of window w with mean mu and covariance Sigma, is the sum over all windows that hold both of

    delta_ij - (1 + (I_i - mu)^T (Sigma + eps/9 Id)^-1 (I_j - mu)) / 9

Levin, Lischinski & Weiss 2006 (closed-form matting), as Luan, Paris, Shechtman & Bala use it: CVPR 2017, arXiv 1703.07511, section 3.1.
M is float64: in float32 it is no longer positive semi-definite at their eps.
"""

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from condgen.errors import BadInput, require_positive

WINDOW = [(dy, dx) for dy in range(3) for dx in range(3)]
"""Places of a window's pixels, from its upper left one."""


def laplacian(content: Tensor, eps: float = 1e-7) -> Any:
    """M of a photograph, scipy CSR float64 (h w, h w), pixels row by row; at most 25 entries a row.

    Args:
        content: (1, 1 or 3, h, w) in [-1, 1], of at least 3x3 px. Read as [0, 1].
        eps: how much variance of a window counts as none, in squares of [0, 1]; 1e-7 as released. From 1e-5 on, honest changes of
            colour begin to cost; on flat regions it calms noise.

    Raises:
        BadInput: for another shape, or an eps that is not above 0.
    """
    from scipy import sparse

    require_positive(eps=eps)
    h, w = _size(content)
    colours = ((content[0].detach().cpu().double() + 1) / 2).permute(1, 2, 0).numpy()
    bands = _bands(colours, eps)
    by_offset: dict[int, np.ndarray] = {}
    for (dy, dx), band in bands.items():  # below 5 px of width, two places of a window may lie equally far apart in a row
        offset = dy * w + dx
        # scipy keeps an entry (i, i + offset) in column i + offset of its band; what wraps around is 0
        by_offset[offset] = by_offset.get(offset, 0) + np.roll(band.ravel(), offset)
    return sparse.dia_array((np.stack(list(by_offset.values())), list(by_offset)), shape=(h * w, h * w)).tocsr()


def _size(content: Tensor) -> tuple[int, int]:
    if content.dim() != 4 or len(content) != 1 or content.shape[1] not in (1, 3) or min(content.shape[2:]) < 3:
        raise BadInput(f"a photograph of shape {tuple(content.shape)}; expected (1, 3, h, w) of at least 3x3 px")
    return content.shape[2], content.shape[3]


def _bands(colours: np.ndarray, eps: float) -> dict[tuple[int, int], np.ndarray]:
    """(dy, dx) -> (h, w): M's entry between each pixel and the one so far below and right of it; 0 where there is none.

    One pair of window places at a time, for all windows at once: memory is that of M, not of 81 numbers a window.
    """
    h, w, _ = colours.shape
    shifted = np.stack([colours[dy : h - 2 + dy, dx : w - 2 + dx] for dy, dx in WINDOW])  # (9, h-2, w-2, c)
    centred = shifted - shifted.mean(0)
    whitened = _whitened(centred, eps)
    bands = {(dy, dx): np.zeros((h, w)) for dy in range(-2, 3) for dx in range(-2, 3)}
    for (i, (yi, xi)), (j, (yj, xj)) in itertools.product(enumerate(WINDOW), repeat=2):
        entry = float(i == j) - (1 + np.einsum("hwc,hwc->hw", centred[i], whitened[j])) / 9
        bands[yj - yi, xj - xi][yi : h - 2 + yi, xi : w - 2 + xi] += entry
    return bands


def _whitened(centred: np.ndarray, eps: float) -> np.ndarray:
    """(Sigma + eps/9 Id)^-1 (I_j - mu), (9, h-2, w-2, c)."""
    covariance = np.einsum("nhwc,nhwd->hwcd", centred, centred) / 9
    inverse = np.linalg.inv(covariance + eps / 9 * np.eye(centred.shape[-1]))
    return np.einsum("hwcd,nhwd->nhwc", inverse, centred)


class _Quadratic(torch.autograd.Function):
    """v -> sum of v^T M v over its rows, whose gradient is 2 M v since M is symmetric."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, m: Any) -> Tensor:
        product = torch.from_numpy((m @ v.detach().cpu().double().numpy().T).T).to(v.device)  # (rows, h w)
        ctx.save_for_backward(product)
        ctx.dtype = v.dtype
        return (v.double() * product).sum().to(v.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (product,) = ctx.saved_tensors
        return (2 * grads[0].double() * product).to(ctx.dtype), None


def photorealism(x: Tensor, m: Any) -> Tensor:
    """L_m, the sum over pictures and channels of v^T M v, v = (x + 1) / 2; shape (). What is descended is exact: a gradient of 2 M v.

    Args:
        x: (b, c, h, w) in [-1, 1].
        m: `laplacian` of a photograph of the same size.

    Raises:
        BadInput: where the sizes differ.
    """
    h, w = x.shape[-2:]
    if m.shape[0] != h * w:
        raise BadInput(f"a picture of {w}x{h} px and a Laplacian of {m.shape[0]} pixels; expected a photograph of the picture's size")
    return _Quadratic.apply(((x + 1) / 2).flatten(0, 1).flatten(1), m)
