"""Is a transfer's result still the photograph, and has each thing in it the colours of its like?

edge_correlation: Pearson's, of the luminance's Sobel gradient magnitudes; 1 for the photograph itself, near 0 for noise.
colour_distance: for each class, |mean - mean'| + |covariance - covariance'| of red, green and blue in [0, 1] between the picture's
class and the style's, Euclidean and Frobenius norms, weighted by the class's share of the picture.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from condgen.editing.colours import luminance

SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))


def edges(x: Tensor) -> Tensor:
    """Gradient magnitudes (b, 1, h-2, w-2) of the luminance of pictures (b, 3, h, w), in units of their range a pixel, float64."""
    across = torch.tensor(SOBEL, dtype=torch.float64, device=x.device) / 8
    return F.conv2d(luminance(x.double()), torch.stack([across, across.T])[:, None]).square().sum(1, keepdim=True).sqrt()


def edge_correlation(x: Tensor, photograph: Tensor) -> float:
    """Of two pictures (1, 3, h, w) of one size; 0 where one has no edges."""
    a, b = (e - e.mean() for e in (edges(x), edges(photograph)))
    norm = (a.square().sum() * b.square().sum()).sqrt()
    return float((a * b).sum() / norm) if norm > 0 else 0.0


def colour_distance(x: Tensor, places: Tensor, style: Tensor, style_places: Tensor) -> float:
    """How far the colours of each class are from those of the style's class; 0 for the style itself.

    Args:
        x: (1, 3, h, w) in [-1, 1].
        places: memberships (1, k, h, w) in [0, 1] of its pixels; no class may be empty.
        style: (1, 3, h', w').
        style_places: memberships (1, k, h', w') of the same classes.
    """
    mean, covariance = _moments(x, places)
    wanted_mean, wanted_covariance = _moments(style, style_places)
    distance = (mean - wanted_mean).norm(dim=1) + (covariance - wanted_covariance).flatten(1).norm(dim=1)
    share = places[0].double().mean((1, 2))
    return float((share * distance).sum() / share.sum())


def _moments(x: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
    """Of colours in [0, 1], float64: means (k, 3) and covariances (k, 3, 3) of the classes."""
    colours, weights = ((x[0].double() + 1) / 2).flatten(1).T, places[0].double().flatten(1)  # (n, 3), (k, n)
    weights = weights / weights.sum(1, keepdim=True)
    mean = weights @ colours
    second = torch.einsum("kn,nc,nd->kcd", weights, colours, colours)
    return mean, second - mean[:, :, None] * mean[:, None, :]
