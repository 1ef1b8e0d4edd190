"""Attributes that nobody labelled: spoil pictures, see which way their latents go, and go back.

    v = mean enc(distort(x)) - mean enc(x),  over the same pictures;    z - k v takes the blur away

White 2016, arXiv 1609.04468. His vectors are of blur at two strengths, and of motion. What comes back is what the model imagines, not
what was in the picture.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from condgen.conditions import Values
from condgen.data.ink import blurred
from condgen.editing.attributes import AttributeVector, vector_of
from condgen.editing.space import Space
from condgen.errors import BadInput, require_positive

Distortion = Callable[[Tensor], Tensor]
"""Pictures (n, c, h, w) in [-1, 1] to as many of the same shape."""
BLUR, MOTION = 1 / 20, 1 / 5
"""Sigma of the blur and length of the motion, as shares of a picture's smaller side."""
POINTS = 8
"""Points a px that a line of motion is made of."""


def blur(x: Tensor, sigma: float | None = None) -> Tensor:
    """Out of focus: a Gaussian of `sigma` px, by default a twentieth of the smaller side. Raises BadInput for what is no picture."""
    _require_pictures(x)
    sigma = BLUR * min(x.shape[2:]) if sigma is None else sigma
    require_positive(sigma=sigma)
    return blurred(x, sigma, repeat=True)


def motion(x: Tensor, length: float | None = None, degrees: float = 0.0) -> Tensor:
    """Moved while it was taken.

    Args:
        x: (n, c, h, w).
        length: of the way in px, by default a fifth of the smaller side.
        degrees: of the way: 0 across, 90 up and down, turning as a clock's hand does not.

    Raises:
        BadInput: for what is no picture.
    """
    _require_pictures(x)
    length = MOTION * min(x.shape[2:]) if length is None else length
    require_positive(length=length)
    kernel = line_kernel(length, degrees).to(x)
    sheets = F.pad(x.flatten(0, 1)[:, None], (len(kernel) // 2,) * 4, mode="replicate")
    return F.conv2d(sheets, kernel[None, None]).reshape(x.shape)


def line_kernel(length: float, degrees: float) -> Tensor:
    """A straight line through the middle as weights of sum 1, float64 (k, k), k odd: what a moved point leaves.

    >>> line_kernel(2, 0)[1].tolist()
    [0.25, 0.5, 0.25]
    """
    radius = math.ceil(length / 2)
    n = max(2, round(POINTS * length))
    along = ((torch.arange(n, dtype=torch.float64) + 0.5) / n - 0.5) * length
    x, y = radius + along * math.cos(math.radians(degrees)), radius - along * math.sin(math.radians(degrees))
    steps = torch.arange(2 * radius + 1, dtype=torch.float64)
    near_x, near_y = ((1 - (steps[:, None] - p).abs()).clamp(min=0) for p in (x, y))  # (k, n): shares of the pixels beside a point
    return near_y @ near_x.T / n


DISTORTIONS: dict[str, Distortion] = {"blur": blur, "motion": motion}
"""By name, each at its default strength."""


def synthetic_vector(
    space: Space, x: Tensor, c: Values | None, distort: Distortion, name: str = "blur", whiten: bool = False
) -> AttributeVector:
    """The way that latents go when pictures are spoiled, with the threshold that tells the spoiled ones best.

    Args:
        space: of a model that encodes.
        x: (n, c, h, w); some thousands for a clean vector.
        c: their conditions, where the model reads some.
        distort: a value of `DISTORTIONS`, or a function of one's own.
        name: of the attribute.
        whiten: read it in whitened latents, as in `attribute_vectors`; what is added stays the same.

    Raises:
        BadInput: for a model without an encoder, and a distortion that gives other shapes.
    """
    spoiled = distort(x)
    if spoiled.shape != x.shape:
        raise BadInput(f"the distortion makes {tuple(spoiled.shape)} of pictures {tuple(x.shape)}; expected the same shape")
    z, moved = space.encode(x, c), space.encode(spoiled, c)
    direction = (moved.double() - z.double()).mean(0).to(z.dtype)
    has = torch.arange(2 * len(z)) >= len(z)
    return vector_of(name, direction, torch.cat([z, moved]), has, "synthetic", whiten)


def sharpness(x: Tensor) -> Tensor:
    """Variance of the Laplacian of pictures (n, c, h, w), of the mean over channels, inside their rim: float64 (n,).

    Raises BadInput for what is no picture of at least 3 x 3 px.
    """
    _require_pictures(x)
    if min(x.shape[2:]) < 3:
        raise BadInput(f"pictures of {x.shape[2]} x {x.shape[3]} px have no inside; expected at least 3 x 3")
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]], dtype=torch.float64)
    return F.conv2d(x.double().mean(1, keepdim=True), kernel[None, None]).flatten(1).var(1, correction=0)


def _require_pictures(x: Tensor) -> None:
    if x.dim() != 4:
        raise BadInput(f"samples of shape {tuple(x.shape)} are no pictures; expected (n, c, h, w)")
