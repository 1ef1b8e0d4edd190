"""How much pictures change along a way through the latents: the metrics `path_length_z` and `path_length_w`.

    E[ d(G(p(t)), G(p(t + eps))) / eps^2 ],    p = slerp(z1, z2; .) in z, lerp(w1, w2; .) in w,  eps = 1e-4

Karras, Laine & Aila 2019, arXiv 1812.04948, section 4.1. "Full" has t ~ U(0, 1), the part `/end` t = 0: half-way between two w lies
something that no z is mapped to. Lengths below the 1st and above the 99th percentile are left out, as in the released code; noise is
the same in every picture, truncation is off, the conditions of a pair are the same.

Ours is d, which is `perceptual` on the judge (the paper has LPIPS on VGG16), and that faces are not cropped. A generator that draws
one picture has length 0, so it is read beside the Fréchet distance, and an untrained model is no bound of either side.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Generator, Tensor

from condgen.conditions import Values
from condgen.editing.latent import lerp, slerp
from condgen.errors import BadInput, require_positive
from condgen.evaluation.measuring import Family, Measured, Measuring
from condgen.evaluation.perceptual import Perceptual, perceptual
from condgen.evaluation.probes import given
from condgen.evaluation.synthesis import AtRest, conditions_of
from condgen.model import Model

EPS = 1e-4
PAIRS = 1500
CONTROL_PAIRS = 250
"""Of the untrained model."""
TAIL = 0.01
"""Share of the lengths that is left out at either end."""
CHUNK = 16
"""Pairs at once: convolutions in float64 are fastest on few pictures."""
Way = Callable[[Tensor, Tensor, Tensor], Tensor]


class Length(NamedTuple):
    """Mean of what is kept, its standard error, and how many lengths there were."""

    mean: float
    standard_error: float
    n: int


def path_length_z(m: Measuring) -> Family:
    """The length along arcs of z; part `/end`."""
    return _family(m, "z")


def path_length_w(m: Measuring) -> Family:
    """The length along chords of w; part `/end`."""
    return _family(m, "w")


def _family(m: Measuring, space: str) -> Family:
    distance, name = perceptual(m.judge), f"path_length_{space}"
    way = "slerp on the sphere of z" if space == "z" else "lerp in w"
    about = f"|{distance.id}|{way}|eps={EPS:g}|{{}}|trimmed by {TAIL:.0%} at both ends|fixed noise, no truncation, no crop|"
    about += f"n={PAIRS} pairs|f64|v1{given(m.model)}|ceiling=none|control=untrained model, n={CONTROL_PAIRS}"
    found = {}
    for part, end, places in ((name, False, "full: t in [0,1]"), (f"{name}/end", True, "end: t=0")):
        ours = _length(m, m.model, space, PAIRS, end, distance)
        control = _length(m, m.untrained, space, CONTROL_PAIRS, end, distance).mean
        found[part] = Measured(ours.mean, None, control, ours.n, name + about.format(places), ours.standard_error)
    return found


def _length(m: Measuring, model: Model, space: str, pairs: int, end: bool, distance: Perceptual) -> Length:
    places = torch.zeros(pairs) if end else torch.rand(pairs, generator=Generator().manual_seed(m.seed + 1))
    return trimmed(lengths(model, conditions_of(m, pairs), places, space, distance, m.seed))


def lengths(model: Model, c: Values, t: Tensor, space: str, distance: Callable[[Tensor, Tensor], Tensor], seed: int = 0) -> Tensor:
    """Squared lengths along the ways between random pairs of latents.

    Args:
        model: with the capability "synthesis"; a copy of it is measured, in float64.
        c: conditions (n, ...), those of both ends of a pair.
        t: where on each way, (n,) in [0, 1].
        space: "z" or "w".
        distance: of pictures (b, *shape) and as many others, (b,); a squared one.
        seed: of the latents.

    Returns:
        d / eps^2, float64 (n,).

    Raises:
        BadInput: for a model without styles, or another space.
    """
    if space not in ("z", "w"):
        raise BadInput(f"space is {space!r}; expected 'z' or 'w'")
    at = AtRest(model, torch.float64, CHUNK)
    a, b = at.latents(len(t), seed, 2)
    if space == "w":
        return squared_speeds(lambda w, _: at.draw(w), at.mapping(a, c), at.mapping(b, c), t, lerp, distance)

    def draw(some: Tensor, rows: Tensor) -> Tensor:
        return at.draw(at.mapping(some, {k: v[rows] for k, v in c.items()}))

    return squared_speeds(draw, on_sphere(a), on_sphere(b), t, slerp, distance)


def squared_speeds(
    draw: Callable[[Tensor, Tensor], Tensor],
    a: Tensor,
    b: Tensor,
    t: Tensor,
    way: Way,
    distance: Callable[[Tensor, Tensor], Tensor],
    eps: float = EPS,
    chunk: int = CHUNK,
) -> Tensor:
    """d(draw(way(a, b; t)), draw(way(a, b; t + eps))) / eps^2 of each pair, float64 (n,).

    Args:
        draw: latents (k, *latent) and their rows (k,) -> pictures (k, *shape).
        a, b: ends, (n, *latent), of a type fine enough for eps.
        t: (n,).
        way: as `slerp` and `lerp`.
        distance: squared, of k pictures and k others: (k,).
        eps: above 0.
        chunk: pairs at once.

    Raises:
        BadInput: for an eps that is not above 0, or ends whose shapes differ.
    """
    require_positive(eps=eps, chunk=chunk)
    found = []
    for rows in torch.arange(len(t)).split(chunk):
        near, far = (draw(way(a[rows], b[rows], t[rows].double() + step), rows) for step in (0.0, eps))
        found.append(distance(near, far).double().cpu() / eps**2)
    return torch.cat(found)


def on_sphere(z: Tensor) -> Tensor:
    """z (n, d) brought to the norm sqrt(d), where the prior lies. A mapping that normalises cannot tell the difference."""
    return z * (z.shape[1] ** 0.5 / z.norm(dim=1, keepdim=True))


def trimmed(found: Tensor) -> Length:
    """The mean without both tails: without lengths below the 1st and above the 99th percentile. Raises BadInput for fewer than 2."""
    if len(found) < 2:
        raise BadInput(f"{len(found)} length; a mean needs at least 2")
    ordered, last = found.double().sort().values, len(found) - 1
    first = int(TAIL * last)  # as numpy's "lower" percentile, and "higher" at the other end
    kept = ordered[first : last - first + 1]
    return Length(float(kept.mean()), float(kept.std() / len(kept) ** 0.5), len(found))
