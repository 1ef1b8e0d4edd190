"""Structural similarity of two pictures, and what it says of a class: are two samples of it alike?

    ssim(x, y) = mean of  l cs,   l = (2 mx my + C1) / (mx^2 + my^2 + C1),   cs = (2 sxy + C2) / (sxx + syy + C2)
    ms_ssim    = ssim_M^w_M  prod_{j<M} cs_j^w_j,   each scale a 2 x 2 mean of the last; negative factors count as 0

Means and variances under an 11 x 11 Gaussian window of sd 1.5, C1 = (.01 L)^2, C2 = (.03 L)^2, L = 2. Wang, Simoncelli &
Bovik 2003; the weights are theirs. At the border torchmetrics is followed, so that its numbers come out: contrasts count where
the window fits, the last scale's ssim everywhere, the border reflected (theirs fits there too).

Odena et al. 2016, arXiv 1610.09585, measure the variety of a class by the mean MS-SSIM of 100 random pairs of its samples: 1 is
one picture repeated.

Five scales want 176 px. Smaller pictures get as many scales as keep the shorter side at 7 px or more, the weights renormalised
to sum to 1, and at each scale the largest odd window up to 11 that fits, its sd in proportion. Values of different conventions
cannot be compared, so `convention` says which it was, and every provenance carries it.

We take up to 1,000 pairs. Pairs of a class share samples, so the standard error, which treats them as independent, is a little small.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from condgen.errors import BadInput
from condgen.evaluation.measuring import Family, Measured, Measuring

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW, SIGMA = 11, 1.5
RANGE = 2.0
"""L, from -1 to 1."""
C1, C2 = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2
SMALLEST_PX = 7
PAIRS, FEWEST_PAIRS = 1000, 100
"""Random pairs of a class: in pictures of up to `FULL_PX` a side and few classes, and in any."""
FULL_PX, ALL_PAIRS = 32, 50_000
"""Above so many px a side pairs become fewer as pictures grow, and so they do above so many in all classes together."""
MOST_LISTED = 50
"""Classes up to which each is listed, beside their mean."""


def sides(h: int, w: int, most: int = len(WEIGHTS)) -> tuple[int, ...]:
    """The shorter side in px at each scale, halved while it stays at 7 or more. Raises BadInput for a picture below that.

    >>> sides(28, 28), sides(32, 48), sides(256, 256)
    ((28, 14, 7), (32, 16, 8), (256, 128, 64, 32, 16))
    """
    side = min(h, w)
    if side < SMALLEST_PX:
        raise BadInput(f"pictures of {h} x {w} px are too small: expected at least {SMALLEST_PX} px a side")
    return tuple(side >> j for j in range(most) if side >> j >= SMALLEST_PX)


def windows(h: int, w: int) -> tuple[int, ...]:
    """The side of the window at each scale, odd.

    >>> windows(28, 28), windows(32, 32)
    ((11, 11, 7), (11, 11, 7))
    """
    return tuple(min(WINDOW, side - (side + 1) % 2) for side in sides(h, w))


def convention(h: int, w: int) -> str:
    """All that a value depends on besides the pictures, as fields of a provenance.

    >>> convention(28, 28)
    'ms_ssim|scales=3|windows=11,11,7|sd=1.5 at 11 px, in proportion|L=2|K=.01,.03|border reflected|negative=0'
    """
    found = windows(h, w)
    told = f"windows={','.join(map(str, found))}|sd={SIGMA} at {WINDOW} px, in proportion|L={RANGE:g}"
    return f"ms_ssim|scales={len(found)}|{told}|K=.01,.03|border reflected|negative=0"


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Of pairs (n, c, h, w) in [-1, 1]: float64 (n,), at one scale. Raises BadInput for other shapes."""
    x, y = _pairs(x, y)
    return _maps(x, y, windows(*x.shape[2:])[0])[0]


def ms_ssim(x: Tensor, y: Tensor, chunk: int = 100) -> Tensor:
    """Of pairs (n, c, h, w) in [-1, 1]: float64 (n,), over the scales that `convention` names. Raises BadInput for other shapes."""
    x, y = _pairs(x, y)
    return torch.cat([_over_scales(a, b) for a, b in zip(x.split(chunk), y.split(chunk), strict=True)])


def _pairs(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if x.dim() != 4 or x.shape != y.shape or not len(x):
        raise BadInput(f"pictures of shape {tuple(x.shape)} and {tuple(y.shape)}: expected pairs (n, c, h, w)")
    return x.detach().cpu().double(), y.detach().cpu().double()


def _over_scales(x: Tensor, y: Tensor) -> Tensor:
    sizes = windows(*x.shape[2:])
    factors = []
    for j, window in enumerate(sizes):
        whole, contrast = _maps(x, y, window)
        last = j == len(sizes) - 1
        factors.append((whole if last else contrast).clamp(min=0))
        if not last:
            x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return torch.stack(factors, 1).pow(_weights(len(sizes)).to(x)).prod(1)


def _weights(scales: int) -> Tensor:
    """Of fewer than five scales with sum 1; all five as printed, which is 1.0001."""
    kept = torch.tensor(WEIGHTS[:scales], dtype=torch.float64)
    return kept if scales == len(WEIGHTS) else kept / kept.sum()


def _maps(x: Tensor, y: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """Means over channels and places: of l cs everywhere, the border reflected, and of cs where the window fits."""
    reach = window // 2
    blur = _blurring(window, *x.shape[2:])
    mx, my, xx, yy, xy = blur(x), blur(y), blur(x * x), blur(y * y), blur(x * y)
    cs = (2 * (xy - mx * my) + C2) / ((xx - mx * mx).clamp(min=0) + (yy - my * my).clamp(min=0) + C2)
    brightness = (2 * mx * my + C1) / (mx * mx + my * my + C1)
    return (brightness * cs).mean((1, 2, 3)), cs[..., reach:-reach, reach:-reach].mean((1, 2, 3))


def _blurring(window: int, h: int, w: int) -> Callable[[Tensor], Tensor]:
    """As products with two matrices: on small pictures many times as fast as two convolutions."""
    down, across = _band(window, h), _band(window, w)
    return lambda x: down @ x @ across.T


def _band(window: int, side: int) -> Tensor:
    """The window at every place of a line whose ends are reflected: (side, side), rows sum to 1."""
    at = torch.arange(window, dtype=torch.float64) - (window - 1) / 2
    bell = torch.exp(-0.5 * (at / (SIGMA * window / WINDOW)).square())
    lines = F.pad(torch.eye(side, dtype=torch.float64)[:, None], (window // 2,) * 2, mode="reflect")
    return F.conv1d(lines, (bell / bell.sum())[None, None])[:, 0].T


# --- the metric -----------------------------------------------------------------------------------------------------------


def pairs_each(h: int, w: int, classes: int) -> int:
    """How many pairs of a class, at most, are affordable.

    >>> pairs_each(28, 28, 10), pairs_each(64, 64, 10), pairs_each(28, 28, 964)
    (1000, 250, 100)
    """
    affordable = min(PAIRS * FULL_PX**2 // max(h * w, FULL_PX**2), ALL_PAIRS // classes)
    return max(affordable, FEWEST_PAIRS)


def random_pairs(n: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two rows of n, not the same, `count` times; all there are, once each, where these are no more. BadInput for fewer than two rows."""
    if n < 2:
        raise BadInput(f"{n} pictures have no pair")
    if n * (n - 1) // 2 <= count:
        first, second = torch.combinations(torch.arange(n)).T
        return first, second
    generator = Generator().manual_seed(seed)
    first = torch.randint(n, (count,), generator=generator)
    return first, (first + torch.randint(1, n, (count,), generator=generator)) % n


class Likeness(NamedTuple):
    """Of the pairs of a class: mean, its standard error (None for a single pair), and how many."""

    mean: float
    error: float | None
    pairs: int


def likeness(m: Measuring, name: str = "ms_ssim") -> Family:
    """MS-SSIM of pairs within a class: its mean over classes, and each class's own. n is the number of pairs."""
    samples = m.balanced
    ours, real = _by_group(m, m.groups_asked, lambda rows: samples[rows]), _of_real(m)
    both = [k for k in ours if k in real]
    if not both:
        raise BadInput("no class has two samples and two real pictures")
    repeated = _repeated(m)
    about = _about(m, name) + "|control=one real picture repeated"
    whole, ceiling = (_over_classes([of[k] for k in both]) for of in (ours, real))
    found = {name: Measured(whole.mean, ceiling.mean, repeated, whole.pairs, about, whole.error)}
    for k in both if m.label and len(both) <= MOST_LISTED else ():
        found[f"{name}/{m.name_of(k)}"] = Measured(ours[k].mean, real[k].mean, repeated, ours[k].pairs, about, ours[k].error)
    return found


def likeness_of_real(m: Measuring) -> Measured:
    """The same of real training pictures."""
    real = _over_classes(list(_of_real(m).values()))
    about = _about(m, "ms_ssim_real") + "|control=one real picture repeated"
    return Measured(real.mean, real.mean, _repeated(m), real.pairs, about, real.error)


def _repeated(m: Measuring) -> float:
    return float(ms_ssim(m.real.x[:1], m.real.x[:1]))


def _of_real(m: Measuring) -> dict[int, Likeness]:
    groups = m.train.values()[m.label] if m.label else torch.zeros(len(m.train), dtype=torch.int64)
    return _by_group(m, groups, lambda rows: m.train.batch(rows).x)


def _by_group(m: Measuring, groups: Tensor, pictures: Callable[[Tensor], Tensor]) -> dict[int, Likeness]:
    h, w = m.model.shape[1:]
    found, most = {}, pairs_each(h, w, m.classes)
    for k in groups.unique().tolist():
        own = (groups == k).nonzero().flatten()
        if len(own) > 1:
            first, second = random_pairs(len(own), most, m.seed)
            each = ms_ssim(pictures(own[first]), pictures(own[second]))
            found[k] = Likeness(float(each.mean()), float(each.std()) / len(each) ** 0.5 if len(each) > 1 else None, len(each))
    return found


def _over_classes(found: Sequence[Likeness]) -> Likeness:
    """Each class counts the same."""
    errors = [one.error for one in found if one.error is not None]
    error = sum(e * e for e in errors) ** 0.5 / len(found) if len(errors) == len(found) else None
    return Likeness(sum(one.mean for one in found) / len(found), error, sum(one.pairs for one in found))


def _about(m: Measuring, name: str) -> str:
    of = f"within {m.label}" if m.label else "over all"
    h, w = m.model.shape[1:]
    pairs = f"{pairs_each(h, w, m.classes)} pairs each or all there are, as if independent"
    even = "|classes evenly" if m.label else ""
    drawn = "" if name == "ms_ssim_real" else f"|of {m.n} samples"
    return f"{name}|{convention(h, w).removeprefix('ms_ssim|')}|{of}|{pairs}{drawn}|f64|v1{even}|ceiling=training rows"
