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
"""

from collections.abc import Callable, Iterable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from condgen.errors import BadInput
from condgen.evaluation.measuring import Family, Measured, Measuring

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
WINDOW, SIGMA = 11, 1.5
C1, C2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
SMALLEST_PX = 7
PAIRS = 100
"""Random pairs of a class."""
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
    'ms_ssim|scales=3|windows=11,11,7|K=.01,.03|border reflected|negative=0'
    """
    found = windows(h, w)
    return f"ms_ssim|scales={len(found)}|windows={','.join(map(str, found))}|K=.01,.03|border reflected|negative=0"


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
    x, y = (F.pad(v, (reach,) * 4, mode="reflect") for v in (x, y))
    mx, my, xx, yy, xy = _blurred(torch.cat([x, y, x * x, y * y, x * y]), window).chunk(5)
    cs = (2 * (xy - mx * my) + C2) / ((xx - mx * mx).clamp(min=0) + (yy - my * my).clamp(min=0) + C2)
    brightness = (2 * mx * my + C1) / (mx * mx + my * my + C1)
    return (brightness * cs).mean((1, 2, 3)), cs[..., reach:-reach, reach:-reach].mean((1, 2, 3))


def _blurred(x: Tensor, window: int) -> Tensor:
    at = torch.arange(window, dtype=x.dtype) - (window - 1) / 2
    bell = torch.exp(-0.5 * (at / (SIGMA * window / WINDOW)).square())
    bell, shape = bell / bell.sum(), x.shape
    flat = F.conv2d(x.reshape(-1, 1, *shape[2:]), bell.reshape(1, 1, -1, 1))
    return F.conv2d(flat, bell.reshape(1, 1, 1, -1)).squeeze(1).unflatten(0, shape[:2])


# --- the metric -----------------------------------------------------------------------------------------------------------


def random_pairs(n: int, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two rows of n, not the same, `count` times. Raises BadInput where there are fewer than two."""
    if n < 2:
        raise BadInput(f"{n} pictures have no pair")
    generator = Generator().manual_seed(seed)
    first = torch.randint(n, (count,), generator=generator)
    return first, (first + torch.randint(1, n, (count,), generator=generator)) % n


def likeness(m: Measuring, name: str = "ms_ssim") -> Family:
    """MS-SSIM of pairs within a class: its mean over classes, and each class's own."""
    samples = m.balanced
    ours, real = _by_group(m, m.groups_asked, lambda rows: samples[rows]), _of_real(m)
    both = {k: (ours[k], real[k]) for k in ours if k in real}
    if not both:
        raise BadInput("no class has two samples and two real pictures")
    repeated = float(ms_ssim(m.real.x[:1], m.real.x[:1]))
    about = _about(m, name) + "|control=one real picture repeated"
    found = {name: Measured.of((*_means(both.values()), repeated), m.n, about)}
    for k, (value, ceiling) in both.items() if m.label and len(both) <= MOST_LISTED else ():
        found[f"{name}/{m.name_of(k)}"] = Measured.of((value, ceiling, repeated), m.n // m.classes, about)
    return found


def likeness_of_real(m: Measuring) -> Measured:
    """The same of real training pictures."""
    real = _of_real(m)
    value = sum(real.values()) / len(real)
    return Measured(value, value, float(ms_ssim(m.real.x[:1], m.real.x[:1])), len(m.train), _about(m, "ms_ssim_real"))


def _of_real(m: Measuring) -> dict[int, float]:
    groups = m.train.values()[m.label] if m.label else torch.zeros(len(m.train), dtype=torch.int64)
    return _by_group(m, groups, lambda rows: m.train.batch(rows).x)


def _by_group(m: Measuring, groups: Tensor, pictures: Callable[[Tensor], Tensor]) -> dict[int, float]:
    found = {}
    for k in groups.unique().tolist():
        own = (groups == k).nonzero().flatten()
        if len(own) > 1:
            first, second = random_pairs(len(own), PAIRS, m.seed)
            found[k] = float(ms_ssim(pictures(own[first]), pictures(own[second])).mean())
    return found


def _means(pairs: Iterable[tuple[float, float]]) -> tuple[float, float]:
    values, ceilings = zip(*pairs, strict=True)
    return sum(values) / len(values), sum(ceilings) / len(ceilings)


def _about(m: Measuring, name: str) -> str:
    of = f"within {m.label}" if m.label else "over all"
    fields = convention(*m.model.shape[1:]).removeprefix("ms_ssim|")
    even = "|classes evenly" if m.label else ""
    return f"{name}|{fields}|{of}|{PAIRS} pairs each|n={m.n}|f64|v1{even}|ceiling=training rows"
