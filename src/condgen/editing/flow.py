"""Where every pixel of a frame came from: dense flow, warping by it, and how far it can be trusted.

A flow "from a to b" has at pixel p of a where p lies in b, minus p: so `warp(b, flow)` is b as seen from a. Of two frames in a row the
*backward* flow goes from the later to the earlier, and brings the earlier one's pixels into the later one's place. Ruder, Dosovitskiy &
Brox 2016, arXiv 1604.08610; the thresholds of what is trusted are those of the paper and of its released code.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from condgen.data.video import opencv
from condgen.errors import BadInput, unknown

LEAST_SIDE = 16
"""In px: DIS and Farneback see nothing in less."""
SOFT_SIGMA = 0.8
"""In px, of the released code's Gaussian over reliabilities."""
GRAY = (0.299, 0.587, 0.114)
"""Of R, G and B: ITU-R 601."""
MODES = ("border", "zeros")


# --- warping --------------------------------------------------------------------------------------------------------------


def grid(h: int, w: int, like: Tensor) -> Tensor:
    """(1, 2, h, w): each pixel's own x and y in px, with the dtype and device of `like`."""
    y, x = torch.meshgrid(
        torch.arange(h, dtype=like.dtype, device=like.device), torch.arange(w, dtype=like.dtype, device=like.device), indexing="ij"
    )
    return torch.stack([x, y])[None]


def warp(x: Tensor, flow: Tensor, mode: str = "border") -> Tensor:
    """x'(p) = x(p + flow(p)), between pixels bilinearly.

    Pixel centres lie at whole numbers, 0 to w - 1 and 0 to h - 1: what `grid_sample` calls align_corners=True.

    Args:
        x: (b, c, h, w).
        flow: (b or 1, 2, h, w) in px; channel 0 to the right, 1 down.
        mode: what lies outside of x: "border" the nearest pixel, "zeros" nothing.

    Raises:
        BadInput: for another mode, or a flow of another size.
    """
    if mode not in MODES:
        raise unknown("mode", mode, MODES)
    b, _, h, w = x.shape
    if flow.dim() != 4 or flow.shape[1:] != (2, h, w) or flow.shape[0] not in (1, b):
        raise BadInput(f"a flow of {tuple(flow.shape)} for pictures of {tuple(x.shape)}; expected ({b} or 1, 2, {h}, {w})")
    return _read_off(x, flow, "bilinear", mode)


def _read_off(x: Tensor, flow: Tensor, between: str, outside: str) -> Tensor:
    b, _, h, w = x.shape
    to = grid(h, w, flow) + flow
    # grid_sample's own measure: -1 and 1 are the centres of the outermost pixels.
    scaled = torch.stack([2 * to[:, 0] / max(w - 1, 1) - 1, 2 * to[:, 1] / max(h - 1, 1) - 1], -1)
    return F.grid_sample(x, scaled.expand(b, h, w, 2).to(x.dtype), mode=between, padding_mode=outside, align_corners=True)


def inside(flow: Tensor) -> Tensor:
    """(b, 1, h, w) of 0 and 1: whether p + flow(p) lies on the picture, its outermost pixel centres included."""
    h, w = flow.shape[2:]
    to = grid(h, w, flow) + flow
    x, y = to[:, :1], to[:, 1:]
    return ((x >= 0) & (x <= w - 1) & (y >= 0) & (y <= h - 1)).to(flow.dtype)


# --- estimates ------------------------------------------------------------------------------------------------------------


def dis(a: Tensor, b: Tensor) -> Tensor:
    """Flow from a to b by dense inverse search, OpenCV's medium preset. Kroeger et al. 2016, arXiv 1603.03590.

    Args:
        a, b: pictures (n, 3 or 1, h, w) in [-1, 1], pair by pair.

    Returns:
        (n, 2, h, w) in px.

    Raises:
        BadInput: for pictures of other shapes or smaller than `LEAST_SIDE` px; where OpenCV is missing.
    """
    cv2 = opencv()
    found = []
    for one, other in _pairs(a, b):
        # A new one each time: it keeps what it found last, and a flow must not depend on the pair before.
        found.append(cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(one, other, None))
    return _as_flow(found)


def farneback(a: Tensor, b: Tensor) -> Tensor:
    """Flow from a to b by polynomial expansion (Farnebäck 2003): another method, to judge by what was not descended. As `dis`."""
    cv2 = opencv()
    how = {"pyr_scale": 0.5, "levels": 4, "winsize": 15, "iterations": 5, "poly_n": 7, "poly_sigma": 1.5, "flags": 0}
    return _as_flow([cv2.calcOpticalFlowFarneback(one, other, None, **how) for one, other in _pairs(a, b)])


FLOWS = {"dis": dis, "farneback": farneback}


def _pairs(a: Tensor, b: Tensor) -> list[tuple[np.ndarray, np.ndarray]]:
    if a.shape != b.shape or a.dim() != 4 or a.shape[1] not in (1, 3):
        raise BadInput(f"frames of {tuple(a.shape)} and {tuple(b.shape)}; expected two of (n, 3 or 1, h, w)")
    if min(a.shape[2:]) < LEAST_SIDE:
        raise BadInput(f"frames of {a.shape[3]}x{a.shape[2]} px are too small for optical flow; expected {LEAST_SIDE} px or more a side")
    return list(zip(_gray(a), _gray(b), strict=True))


def _gray(x: Tensor) -> np.ndarray:
    """uint8 (n, h, w) of pictures in [-1, 1]."""
    light = x[:, 0] if x.shape[1] == 1 else (x * x.new_tensor(GRAY)[:, None, None]).sum(1)
    return ((light + 1) * 127.5).round().clamp(0, 255).to(torch.uint8).cpu().numpy()


def _as_flow(found: Sequence[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float().contiguous()


# --- trust ----------------------------------------------------------------------------------------------------------------


def disoccluded(backward: Tensor, forward: Tensor) -> Tensor:
    """bool (b, 1, h, w): where going there and back does not lead home, so that the pixel was hidden in the other frame.

        |w~ + w^|^2 > 0.01 (|w~|^2 + |w^|^2) + 0.5

    w~ is read off at the nearest pixel: between two motions the mean of both is neither. Interpolated, as in the released code, the rims of
    sprites count as hidden too (on drawn clips with exact flow a precision of .78 to .96; so, .84 to .98).

    Args:
        backward: w^, flow (b, 2, h, w) from this frame to the other.
        forward: flow of the other frame to this one; w~ is it seen from this frame.
    """
    there = _read_off(forward, backward, "nearest", "border")
    gap = (there + backward).square().sum(1, keepdim=True)
    return gap > 0.01 * (_squares(there) + _squares(backward)) + 0.5


def motion_boundary(backward: Tensor) -> Tensor:
    """bool (b, 1, h, w): where the flow changes steeply, so that its estimate is often off.

        |grad u|^2 + |grad v|^2 > 0.01 |w^|^2 + 0.002

    Gradients are central differences, in px a px.
    """
    padded = F.pad(backward, (1, 1, 1, 1), mode="replicate")
    across, down = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2, (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    return _squares(across) + _squares(down) > 0.01 * _squares(backward) + 0.002


def _squares(flow: Tensor) -> Tensor:
    return flow.square().sum(1, keepdim=True)


def reliability(backward: Tensor, forward: Tensor, soft: bool = False, boundaries: bool = True) -> Tensor:
    """c in [0, 1], (b, 1, h, w): how far `backward` can be trusted; 0 out of the frame, where disoccluded, and at edges of motion.

    Args:
        backward: flow (b, 2, h, w) in px from this frame to the other.
        forward: flow from the other frame to this one.
        soft: whether disocclusions also take their neighbours' weights (`softened`), as in the released code.
        boundaries: whether edges of motion are left out, where an estimate is often off; an exact flow needs it not.
    """
    hidden, there = disoccluded(backward, forward), inside(backward)
    steep = motion_boundary(backward) if boundaries else torch.zeros_like(hidden)
    c = there * ~hidden * ~steep
    return softened(c - hidden.to(c)) * there if soft else c


def softened(c: Tensor, sigma: float = SOFT_SIGMA) -> Tensor:
    """Blurred by a Gaussian, then cut to [0, 1]: places of -1 also pull the weights beside them to 0, so that nothing smears there.

    Args:
        c: (b, 1, h, w) in [-1, 1].
        sigma: in px.
    """
    reach = max(1, round(3 * sigma))
    at = torch.arange(-reach, reach + 1, dtype=c.dtype, device=c.device)
    kernel = torch.exp(-0.5 * (at / sigma) ** 2)
    kernel = (kernel / kernel.sum())[None, None, None]
    padded = F.pad(c, (reach, reach, reach, reach), mode="replicate")
    return F.conv2d(F.conv2d(padded, kernel), kernel.transpose(2, 3)).clamp(0, 1)


def long_term(cs: Sequence[Tensor]) -> list[Tensor]:
    """Of reliabilities towards several earlier frames, nearest first, what each adds to the nearer ones.

        c_long(j) = max(c(j) - sum of c(k) over the nearer k, 0)

    So a pixel is held to the nearest frame that shows it, and to one further back where the nearer ones hid it.

    Args:
        cs: of one shape, in order of distance. Raises BadInput for none, or other shapes.
    """
    if not cs or len({c.shape for c in cs}) > 1:
        raise BadInput(f"reliabilities of shapes {[tuple(c.shape) for c in cs]}; expected at least one, all alike")
    taken, found = torch.zeros_like(cs[0]), []
    for c in cs:
        found.append((c - taken).clamp(min=0))
        taken = taken + c
    return found
