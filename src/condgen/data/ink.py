"""Pictures of strokes, light on black: made smaller, centred by the mass of their ink, blurred.

Pictures are float32 (n, 1, h, w) in [-1, 1]; their ink is (x + 1) / 2, and 0 is the empty sheet that comes in at the sides.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def reduced(pixels: np.ndarray, size: int) -> np.ndarray:
    """uint8 (n, h, w, 1) as (n, size, size, 1), each pixel a weighted mean of those it covers (Pillow's triangle filter)."""
    from PIL import Image

    sheets = (Image.fromarray(sheet[..., 0]).resize((size, size), Image.Resampling.BILINEAR) for sheet in pixels)
    return np.stack([np.asarray(sheet) for sheet in sheets])[..., None]


def centred(x: Tensor, whole: bool = False) -> Tensor:
    """Each picture moved so that the centre of mass of its ink is the centre of the picture.

    Args:
        x: (n, 1, h, w) in [-1, 1].
        whole: by whole pixels, which keeps every value; else by fractions of one, between which values are interpolated.
    """
    ink = (x + 1) / 2
    shift = _middle(ink) - _centre_of_mass(ink)  # (n, 2): right, down, px
    shift = shift.round() if whole else shift
    across = 2 * shift / ink.new_tensor([ink.shape[-1], ink.shape[-2]])  # a picture is 2 wide to `affine_grid`
    where = torch.cat([torch.eye(2).to(ink).expand(len(ink), 2, 2), -across[..., None]], dim=2)
    grid = F.affine_grid(where, list(ink.shape), align_corners=False)
    return 2 * F.grid_sample(ink, grid, align_corners=False) - 1


def _middle(ink: Tensor) -> Tensor:
    return (ink.new_tensor([ink.shape[-1], ink.shape[-2]]) - 1) / 2


def _centre_of_mass(ink: Tensor) -> Tensor:
    """(n, 2): x, y in px; anything for a sheet without ink, which is the same wherever it is moved."""
    height, width = ink.shape[-2:]
    across = ink.sum((1, 2)) @ torch.arange(width).to(ink)
    down = ink.sum((1, 3)) @ torch.arange(height).to(ink)
    return torch.stack([across, down], dim=1) / ink.sum((1, 2, 3)).clamp(min=1e-6)[:, None]


def moved(x: Tensor, down: Tensor, across: Tensor, reach: int) -> Tensor:
    """Pictures (n, c, h, w) moved up and to the left by whole pixels, the border repeated.

    Args:
        down, across: int64 (n,), from 0 to 2 * reach; `reach` leaves a picture where it is.
        reach: px, the farthest either way.
    """
    n, _, h, w = x.shape
    padded = F.pad(x, (reach,) * 4, mode="replicate").permute(0, 2, 3, 1)
    rows, columns = down[:, None] + torch.arange(h, device=x.device), across[:, None] + torch.arange(w, device=x.device)
    return padded[torch.arange(n, device=x.device)[:, None, None], rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def blurred(x: Tensor, sigma: float, repeat: bool = False) -> Tensor:
    """Convolved with a Gaussian of `sigma` px, cut at four of them; as it is where sigma is 0.

    Args:
        x: (n, c, h, w) in [-1, 1], of any number of channels.
        sigma: px.
        repeat: a picture's rim goes on outside of it, as a photograph's does; else the empty sheet comes in.
    """
    if sigma == 0:
        return x
    radius = math.ceil(4 * sigma)
    bell = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma).square())
    kernel = (bell / bell.sum()).to(x)
    ink = F.pad(_sheets(x), (radius,) * 4, mode="replicate" if repeat else "constant")
    across = F.conv2d(ink, kernel[None, None, None])
    return 2 * F.conv2d(across, kernel[None, None, :, None]).reshape(x.shape) - 1


def _sheets(x: Tensor) -> Tensor:
    """Ink in [0, 1], each channel a sheet of its own: (n * c, 1, h, w)."""
    return (x.flatten(0, 1)[:, None] + 1) / 2
