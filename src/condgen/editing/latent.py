"""Ways through a latent space: along the sphere, along the chord, and by analogy.

    slerp(a, b; t) = sin((1 - t) theta) / sin(theta) a + sin(t theta) / sin(theta) b,    theta = the angle between a and b

White 2016, "Sampling Generative Networks", arXiv 1609.04468. The angle is that of the directions, what is mixed are the raw vectors.
Why not along the chord: draws of N(0, I_d) lie near a sphere of radius sqrt(d), any two of them nearly at a right angle. Half-way along
the chord the norm is about sqrt(d / 2), where the prior has next to nothing and the decoder was hardly trained; half-way along the
arc it is sqrt(d) again. For a uniform prior the same walk is taken in the Gaussian that it is the image of (`uniform_path`).

Latents are (b, *latent), of any number of dimensions: angles and norms are those of the flattened rows. Computed in float64,
returned in the type of the first latent.
"""

import math
from collections.abc import Callable
from numbers import Real

import torch
from torch import Tensor

from condgen.errors import BadInput, require_whole, unknown

STRAIGHT = 1e-6
"""Radians: below this angle the arc is its chord to all digits of float32, and sin(theta) divides by nearly nothing."""
OPPOSITE = 1e-4
"""Radians from a half turn, within which rounding, not the latents, would decide by which way the arc goes round."""
TINY = 1e-12
"""Half-units of a uniform prior that stay off its rim, where the Gaussian would be infinite."""


def slerp(a: Tensor, b: Tensor, t: float | Tensor) -> Tensor:
    """On the arc from a to b.

    Exact at both ends. Where a and b have one direction, or one of them is zero, this is `lerp`; so a where they are equal. Where they
    are opposite, every half circle is as short as any other: the one taken leads through the coordinate axis to which a is
    nearest to orthogonal (the first of several), at the mean of the two norms. It depends on no order of the two and on no chance.

    Norms that differ are mixed as printed. Of two almost opposite latents with different norms, as there may be in two dimensions
    and hardly in twenty, the formula goes far outside: its weights grow as 1 / sin(theta).

    Args:
        a, b: (b, *latent).
        t: 0 gives a and 1 gives b, beyond them the arc goes on. A number, or a tensor that broadcasts with (b,): (b,) has one for each
            pair, (steps, 1) a row of all pairs for each step.

    Returns:
        (b, *latent), or (steps, b, *latent).

    Raises:
        BadInput: for latents of different shapes, and a t that is not finite or does not broadcast.
    """
    x, y = _rows(a, b)
    t = _places(t, len(x))
    theta = _angle(x, y)
    opposite = math.pi - theta < OPPOSITE
    straight = (theta < STRAIGHT) | (x.norm(dim=1, keepdim=True) == 0) | (y.norm(dim=1, keepdim=True) == 0)
    safe = torch.where(straight | opposite, math.pi / 2, theta)
    arc = ((1 - t) * safe).sin() / safe.sin() * x + (t * safe).sin() / safe.sin() * y
    found = torch.where(opposite, _half_circle(x, y, t), arc)
    return _shaped(torch.where(straight, torch.lerp(x, y, t), found), a)


def lerp(a: Tensor, b: Tensor, t: float | Tensor) -> Tensor:
    """On the chord from a to b, (1 - t) a + t b, exact at both ends. Arguments, answer and errors as of `slerp`."""
    x, y = _rows(a, b)
    return _shaped(torch.lerp(x, y, _places(t, len(x))), a)


def angle(a: Tensor, b: Tensor) -> Tensor:
    """Between latents (b, *latent), row by row: radians in [0, pi], float64 (b,).

    A zero vector has no direction: pi / 2 from every other, and from itself 0. Raises BadInput for different shapes.

    >>> angle(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]]))
    tensor([1.5708], dtype=torch.float64)
    """
    return _angle(*_rows(a, b)).flatten()


def analogy(a: Tensor, b: Tensor, c: Tensor, renorm: bool = False) -> Tensor:
    """d of "a is to b as c is to d": c + b - a, the fourth corner of a parallelogram. So b and c may change places.

    Args:
        a, b, c: (b, *latent).
        renorm: bring each d to the mean norm of its three: sums leave the sphere, and those of sums the more.

    Returns:
        (b, *latent).

    Raises:
        BadInput: for latents of different shapes.
    """
    (x, y), (z, _) = _rows(a, b), _rows(c, a)
    d = z + (y - x)
    if renorm:
        wanted = (x.norm(dim=1) + y.norm(dim=1) + z.norm(dim=1)) / 3
        d = d * (wanted / d.norm(dim=1).clamp(min=torch.finfo(d.dtype).tiny))[:, None]
    return d.to(a.dtype).reshape(a.shape)


# --- paths ----------------------------------------------------------------------------------------------------------------

WAYS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {"slerp": slerp, "lerp": lerp}


def path(a: Tensor, b: Tensor, steps: int, how: str = "slerp") -> Tensor:
    """From a to b in even steps, both ends included.

    Args:
        a, b: (b, *latent).
        steps: latents on the way, at least 2.
        how: a key of `WAYS`: "slerp" for Gaussian and spherical priors, "lerp" for latents without a prior, as an autoencoder's.

    Returns:
        (steps, b, *latent).

    Raises:
        BadInput: for latents of different shapes, fewer than 2 steps, or another way.
    """
    require_whole("steps", steps, 2)
    if how not in WAYS:
        raise unknown("way", how, WAYS)
    return WAYS[how](a, b, _even(steps))


def uniform_path(a: Tensor, b: Tensor, steps: int, low: float = -1.0, high: float = 1.0) -> Tensor:
    """The way of `path` for a prior U(low, high)^d: through the normal CDF.

    The coordinates are mapped to those of a Gaussian, walked there by `slerp`, and mapped back. In many dimensions what lies
    between two draws is then distributed as draws are, where half-way along the chord the coordinates crowd in the middle.

    Args:
        a, b: (b, *latent), in [low, high].
        steps: at least 2.
        low, high: ends of the prior.

    Returns:
        (steps, b, *latent), in [low, high]; the ends are a and b.

    Raises:
        BadInput: for latents outside of the prior, or what `path` refuses.
    """
    if not low < high:
        raise BadInput(f"a uniform prior from {low!r} to {high!r}; expected the low end below the high one")
    for z in (a, b):
        if not bool(((z >= low) & (z <= high)).all()):
            raise BadInput(f"latents from {float(z.min()):g} to {float(z.max()):g} for a uniform prior from {low:g} to {high:g}")
    x, y = (torch.special.ndtri(((z.double() - low) / (high - low)).clamp(TINY, 1 - TINY)) for z in (a, b))
    found = (low + (high - low) * torch.special.ndtr(path(x, y, steps))).to(a.dtype).clamp(low, high)
    found[0], found[-1] = a, b
    return found


def _even(steps: int) -> Tensor:
    """Places (steps, 1) from 0 to 1."""
    return torch.linspace(0, 1, steps, dtype=torch.float64)[:, None]


# --- rows -----------------------------------------------------------------------------------------------------------------


def _rows(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both as float64 (b, d)."""
    if a.shape != b.shape or a.dim() < 2:
        raise BadInput(f"latents of shape {tuple(a.shape)} and {tuple(b.shape)}: expected two of (b, d), the same")
    return a.flatten(1).double(), b.flatten(1).double()


def _places(t: float | Tensor, n: int) -> Tensor:
    """float64 (steps, n or 1, 1); steps is 1 for a number or one place a pair."""
    if not isinstance(t, Tensor | Real) or isinstance(t, bool):
        raise BadInput(f"t is {t!r}; expected a number or a tensor")
    at = torch.as_tensor(t, dtype=torch.float64)
    if at.dim() > 2 or (at.dim() and at.shape[-1] not in (1, n)) or not bool(at.isfinite().all()):
        raise BadInput(f"t is {at.tolist() if at.numel() < 5 else tuple(at.shape)}; expected finite numbers, one or {n} a step")
    return at.reshape(at.shape[0] if at.dim() == 2 else 1, -1, 1)


def _shaped(z: Tensor, like: Tensor) -> Tensor:
    """(steps, b, d) as (steps, b, *latent), or without the steps where there is one."""
    found = z.to(like.dtype)
    return found.reshape(like.shape) if len(found) == 1 else found.reshape(len(found), *like.shape)


def _angle(x: Tensor, y: Tensor) -> Tensor:
    """(b, 1). Exact near 0 and pi, where the arc cosine of a product keeps half of the digits (Kahan)."""
    u, v = _unit(x), _unit(y)
    return 2 * torch.atan2((u - v).norm(dim=1), (u + v).norm(dim=1))[:, None]


def _unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=1, keepdim=True).clamp(min=torch.finfo(x.dtype).tiny)


def _half_circle(x: Tensor, y: Tensor, t: Tensor) -> Tensor:
    """From x to its opposite y over a point between them that a fixed rule chooses: two quarters, each a slerp at a right angle."""
    u = _unit(x)
    axis = torch.nn.functional.one_hot(u.abs().argmin(1), x.shape[1]).double()
    across = _unit(axis - (axis * u).sum(1, keepdim=True) * u)
    middle = across * (x.norm(dim=1) + y.norm(dim=1))[:, None] / 2
    end = torch.where(t < 0.5, (math.pi * t).cos() * x, -(math.pi * t).cos() * y)
    return end + (math.pi * torch.minimum(t, 1 - t)).sin() * middle  # sin of the nearer end: exactly 0 at both
