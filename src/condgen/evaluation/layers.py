"""What the layers and the noise of a style-based model control, measured: `style_factors` and `noise_effect`.

    style_factors: n pairs of latents w_a, w_b; some layers of a, the others of b. R^2 (the squared correlation, which is that of a
        linear fit, rising: a correlation below 0 counts as 0) of each factor of the mix with the same factor of the picture that a
        gives alone, over the pairs. 1: these layers decide the factor. 0: they have no say in it, or turn it round
    noise_effect: of the variance that `DRAWS` draws of noise make at a fixed w, the share above half of Nyquist's frequency

Karras, Laine & Aila 2019, arXiv 1812.04948, section 3: styles of coarse layers bring pose and the shape of the face, those of fine ones
colours; noise moves hair and skin and leaves pose and identity. The paper shows pictures. Measuring is ours: factors are read off by nets
that saw real pictures only (`factors`). w is not truncated, pairs share the model's fixed noise, and a pair of conditional samples has
conditions of two test rows.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from condgen.editing.space import require
from condgen.editing.views import bands
from condgen.errors import BadInput
from condgen.evaluation.correlation import pearson
from condgen.evaluation.factors import Factors, factors_for
from condgen.evaluation.measuring import Family, Measured, Measuring
from condgen.evaluation.synthesis import AtRest, conditions_of
from condgen.styled import swapped

PAIRS = 1000
FIXED = 24
"""Latents at which noise is drawn."""
DRAWS = 100
"""Of noise at each of them."""
TO_SEE = {"coarse": ("pose", "shape"), "fine": ("colour",)}
"""The groups whose single factors are parts of the result, by the layers that should decide them."""


# --- layers ---------------------------------------------------------------------------------------------------------------


def style_factors(m: Measuring) -> Family:
    """The mean over the pose of what coarse layers decide, where the data have key points; else over colours of what fine ones do."""
    require(m.model, "synthesis")
    model: Any = m.model
    cuts = cuts_of(model.layer_sides)
    factors, n = factors_for(m.train, m.test), min(m.n, PAIRS)
    value, control = (decided(m, each, cuts, factors, n) for each in (m.model, m.untrained))
    groups = factors.groups
    whole = ("coarse", "pose") if "pose" in groups else ("fine", "colour")
    about = f"style_factors|{factors.id}|squared correlation, 0 below 0|n={n} pairs|f64|v2|no truncation|fixed noise"
    ends = "|ceiling=1 by definition|control=untrained model"

    def measured(cut: str, columns: list[int], more: str = "") -> Measured:
        of = (float(found[cut][columns].mean()) for found in (value, control))
        return Measured(next(of), 1.0, next(of), n, f"{about}|{cut} layers{more}{ends}")

    family = {"style_factors": measured(whole[0], groups[whole[1]], f"|mean over {whole[1]}")}
    for cut in cuts:
        for group, columns in groups.items():
            family[f"style_factors/{cut}:{group}"] = measured(cut, columns)
    for cut, shown in TO_SEE.items():
        for column in sorted({column for group in shown for column in groups.get(group, ())}):
            family[f"style_factors/{cut}:{factors.names[column]}"] = measured(cut, [column])
    return family


def cuts_of(sides: Sequence[int]) -> dict[str, list[int]]:
    """Sets of layers that one latent gives, by name. Raises BadInput for a model with fewer than three sizes of layers.

    >>> cuts_of((4, 4, 8, 8, 16, 16))["middle+fine"]
    [2, 3, 4, 5]
    """
    found = bands(sides)
    if len(found) < 3:
        raise BadInput(f"style_factors needs coarse, middle and fine layers; this model's are of {', '.join(map(str, sides))} px")
    return {**found, "middle+fine": sorted(found["middle"] + found["fine"])}


def decided(m: Measuring, model: Any, cuts: dict[str, list[int]], factors: Factors, n: int) -> dict[str, Tensor]:
    """By cut, R^2 of each factor: float64 (k,), 0 where the picture or the mix does not vary in it, or falls as the other rises.

    Each of n latents gives the named layers once, and once, to the next, the others.
    """
    at = AtRest(model)
    w = styles(m, at, n)
    alone = factors.read(at.samples(w))
    every = w[:, None].expand(-1, len(model.layer_sides), -1)
    mixes = {cut: factors.read(at.samples(swapped(every.roll(1, 0), every, layers))) for cut, layers in cuts.items()}
    return {cut: pearson(alone, mix).nan_to_num(0.0).clamp(min=0).square() for cut, mix in mixes.items()}


def styles(m: Measuring, at: AtRest, n: int) -> Tensor:
    """w (n, d) of latents that the seed draws, under conditions of test rows."""
    (z,) = at.latents(n, m.seed)
    return at.mapping(z, conditions_of(m, n))


# --- noise ----------------------------------------------------------------------------------------------------------------


class Jitter(NamedTuple):
    """What draws of noise change at fixed w.

    Args:
        power: (h, w), squared Fourier coefficients of the deviations from the mean over draws.
        sd: float64 (k,), the deviation of each factor over draws (root of the mean square over w).
        variance: of a pixel over draws, the mean over pixels, draws and w.
    """

    power: Tensor
    sd: Tensor
    variance: float


def noise_effect(m: Measuring) -> Family:
    """The share of the module's head; how much of all variance it is; and what noise does to the factors, the largest and each."""
    require(m.model, "synthesis")
    factors, n = factors_for(m.train, m.test), min(m.n, PAIRS)
    at = AtRest(m.model)
    w = styles(m, at, n)
    samples = at.samples(w)
    jitter, apart = jittered(m, at, w[:FIXED], factors), _apart(samples)
    k, size = len(w[:FIXED]), f"n={len(w[:FIXED])} w, {DRAWS} draws each, {n} samples|f64|v1|no truncation"
    white = f"white noise has {high_share(torch.ones(samples.shape[2:])):.3f}"
    about = f"noise_effect|above half of Nyquist|{size}|{white}|ceiling=none|control=variance of the samples over w"
    share = jitter.variance / max(float(apart.square().mean()), 1e-12)
    of_all = f"noise_effect|variance over draws, of that of samples|{size}|ceiling=none|control=none"
    return {
        "noise_effect": Measured(high_share(jitter.power), None, high_share(power_of(apart)), k, about),
        "noise_effect/variance": Measured(share, None, None, k, of_all),
        **_moved(m, factors, jitter, factors.read(samples), f"{factors.id}|{size}"),
    }


def _moved(m: Measuring, factors: Factors, jitter: Jitter, read: Tensor, about: str) -> Family:
    """Of each factor, its deviation over draws as a share of its range over samples (n, k); and under `factors` the largest."""
    low, high = read.quantile(torch.tensor([0.05, 0.95], dtype=torch.float64), 0)
    span = (high - low).clamp(min=1e-12)
    three = torch.stack([jitter.sd, _under_grain(m, factors, jitter.variance**0.5), read.std(0)], 1) / span[:, None]
    about = f"noise_effect|deviation over draws, of the range from 5 to 95 % of samples|{about}"
    ends = "|ceiling=real pictures under white noise as strong|control=samples over w"
    worst, k = int(three[:, 0].argmax()), min(FIXED, len(read))
    found = {"noise_effect/factors": Measured.of(three[worst].tolist(), k, f"{about}|worst is {factors.names[worst]!r}{ends}")}
    return found | {
        f"noise_effect/{name}": Measured.of(row.tolist(), k, about + ends) for name, row in zip(factors.names, three, strict=True)
    }


def _under_grain(m: Measuring, factors: Factors, strength: float) -> Tensor:
    """float64 (k,): how much the readings of real test pictures deviate under white noise that changes no face: the readers' own unrest."""
    grain = strength * torch.randn(DRAWS, *m.model.shape, generator=torch.Generator().manual_seed(m.seed))
    sds = [factors.read((x + grain).clamp(-1, 1)).std(0) for x in m.real.x[:FIXED]]
    return torch.stack(sds).square().mean(0).sqrt()


def jittered(m: Measuring, at: AtRest, w: Tensor, factors: Factors) -> Jitter:
    """Over DRAWS draws of noise at each w (n, d). Raises BadInput for a model without noise."""
    power, sds, variances = [], [], []
    for i, one in enumerate(w):
        noise = at.noise(DRAWS, m.seed + 1 + i)  # `styles` draws by the seed itself: this would be the numbers of w again
        if not noise:
            raise BadInput(f"noise_effect needs noise in the layers; this {type(m.model).__name__} has none")
        x = at.samples(one.expand(DRAWS, *one.shape), noise)
        apart = _apart(x)
        power.append(power_of(apart))
        sds.append(factors.read(x).std(0))
        variances.append(float(apart.square().sum(0).mean()) / (DRAWS - 1))
    return Jitter(torch.stack(power).sum(0), torch.stack(sds).square().mean(0).sqrt(), sum(variances) / len(variances))


def _apart(x: Tensor) -> Tensor:
    """Pictures minus their mean, float64: equal ones come out as zeros."""
    return x.double() - x.double().mean(0)


def power_of(x: Tensor) -> Tensor:
    """Squared Fourier coefficients of pictures (n, c, h, w), summed over pictures and channels: float64 (h, w)."""
    return torch.fft.fft2(x.double()).abs().square().sum((0, 1))


def high_share(power: Tensor) -> float:
    """The share of power (h, w) at frequencies above half of Nyquist's (a quarter of a cycle per pixel) in any direction.

    >>> checks = (torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1
    >>> high_share(power_of(checks[None, None])), high_share(power_of(torch.ones(1, 1, 8, 8)))
    (1.0, 0.0)
    >>> high_share(torch.zeros(8, 8))
    0.0
    """
    power = power.double()
    radius = torch.hypot(*torch.meshgrid(*(torch.fft.fftfreq(side, dtype=torch.float64) for side in power.shape), indexing="ij"))
    return float(power[radius > 0.25].sum() / power.sum().clamp(min=1e-30))
