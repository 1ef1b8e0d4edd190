"""Which modes of a known mixture a model finds: the metrics `modes`, `high_quality` and `same_mode_reconstruction`.

A point belongs to the mode that is most probably its own: of equal weights and widths, the nearest. It is of *high quality* within three
standard deviations of that, as are 1 - exp(-4.5) = 98.9 % of true points of the plane.

Dumoulin et al. 2016, arXiv 1606.00704, call a mode dropped where no sample at all belongs to it (`modes/any`); Srivastava et al. 2017
(VEEGAN), arXiv 1705.07761, count those that have a sample of high quality (`modes`). Both forgive a mode that has one sample of
thousands; `modes/fair` and `modes/kl` do not.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from condgen.data.mixture2d import MIXTURES, STD
from condgen.editing.space import Space, require
from condgen.errors import BadInput
from condgen.evaluation.measuring import Family, Measured, Measuring
from condgen.evaluation.probes import drawn_latents, given
from condgen.model import capabilities

WITHIN = 3.0
"""Standard deviations from a mode, up to which a point is of high quality."""
FAIR = 0.2
"""Of an equal share of all samples: what a mode must hold in points of high quality to count as `fair`."""


class Modes(NamedTuple):
    """Of points and k modes.

    Args:
        any: modes that a point belongs to.
        hit: modes with a point of high quality.
        fair: modes that hold FAIR of their equal share of all points, in points of high quality.
        kl: KL of these points' modes to the uniform distribution, nats, 0 to log k; log k where there is no such point.
        high_quality: share of points of high quality.
    """

    any: int
    hit: int
    fair: int
    kl: float
    high_quality: float


def nearest_mode(x: Any, centres: Any) -> tuple[Tensor, Tensor]:
    """The nearest centre (k, d) of each point (n, d), int64 (n,), and its distance, float64 (n,). Raises BadInput for NaN or inf."""
    points, modes = (torch.as_tensor(v, dtype=torch.float64) for v in (x, centres))
    if points.dim() != 2 or points.shape[1:] != modes.shape[1:] or not len(points):
        raise BadInput(f"points of shape {tuple(points.shape)} and modes of {tuple(modes.shape)}: expected (n, d) and (k, d)")
    if not bool(torch.isfinite(points).all()):
        raise BadInput("points that are not finite numbers belong to no mode")
    distance, mode = (points[:, None] - modes).norm(dim=2).min(1)
    return mode, distance


def count_modes(x: Any, centres: Any, std: float = STD) -> Modes:
    """Of points (n, d), and centres (k, d) of modes of equal weight and standard deviation."""
    mode, distance = nearest_mode(x, centres)
    k = len(centres)
    near = mode[distance <= WITHIN * std].bincount(minlength=k)
    fair = near >= FAIR * len(mode) / k
    return Modes(len(mode.unique()), int((near > 0).sum()), int(fair.sum()), _kl_to_uniform(near), float(near.sum()) / len(mode))


def _kl_to_uniform(counts: Tensor) -> float:
    p = counts.double() / counts.sum().clamp(min=1)
    return float(math.log(len(p)) + torch.special.xlogy(p, p).sum())  # of no counts: log k, as if all lay in one mode


# --- metrics --------------------------------------------------------------------------------------------------------------


def centres_of(data: Any) -> Tensor:
    """The modes (k, 2) of a data set. Raises BadInput where they are not known."""
    name = getattr(data, "name", None)
    if name not in MIXTURES:
        raise BadInput(f"the modes of {repr(name) if name else 'these data'} are not known; those of {' and '.join(MIXTURES)} are")
    return torch.from_numpy(MIXTURES[name])


def modes(m: Measuring) -> Family:
    """Modes with a sample of high quality; parts: those with any sample, those with a fair share, the KL to equal shares."""
    about = _about(m, "modes") + f"|fair={FAIR:g} of an equal share|ceiling=test rows|control=untrained model"
    found = [count_modes(x, centres_of(m.test)) for x in (m.natural, m.real.x, m.drawn(m.untrained, m.naturally))]
    names = {"modes": "hit", "modes/any": "any", "modes/fair": "fair", "modes/kl": "kl"}
    return {part: Measured.of((float(getattr(c, field)) for c in found), m.n, about) for part, field in names.items()}


def high_quality(m: Measuring) -> Measured:
    """Share of samples within three standard deviations of a mode.

    An untrained model may draw all points at one mode and be perfect here: the control is a normal distribution fitted to the test rows.
    """
    about = _about(m, "high_quality") + "|ceiling=test rows|control=a normal of their mean and covariance"
    found = [count_modes(x, centres_of(m.test)).high_quality for x in (m.natural, m.real.x, _normal_like(m.real.x, m.n, m.seed))]
    return Measured.of(found, m.n, about)


def _about(m: Measuring, name: str) -> str:
    return f"{name}|{len(centres_of(m.test))} modes|within {WITHIN:g} sd of {STD:g}|n={m.n}|f64|v1{given(m.model)}"


def _normal_like(x: Tensor, n: int, seed: int) -> Tensor:
    """n points of a normal distribution with the mean and covariance of x (m, d)."""
    factor = torch.linalg.cholesky(x.double().T.cov())
    return x.double().mean(0) + torch.randn(n, x.shape[1], dtype=torch.float64, generator=Generator().manual_seed(seed)) @ factor.T


def same_mode_reconstruction(m: Measuring) -> Family:
    """Share of test points whose reconstruction is nearest to the same mode as the point; whether it is also of high quality is a part.

    The part `latent_spread` is the largest relative difference of a dimension's standard deviation over E(x) from that over the prior.
    """
    require(m.model, "encode", "decode")
    centres, c = centres_of(m.test), m.real_conditions
    own = nearest_mode(m.real.x, centres)[0]
    shares = [_kept(own, Space(model).reconstruct(m.real.x, c), centres) for model in (m.model, m.untrained)]
    real = _kept(own, m.real.x, centres)
    about = f"same_mode_reconstruction|{len(centres)} modes|nearest mode|n={len(own)} test|v1{given(m.model)}"
    ends = "|ceiling=the points themselves|control=untrained model"
    names = ("same_mode_reconstruction", "same_mode_reconstruction/high_quality")
    family = {name: Measured.of((shares[0][i], real[i], shares[1][i]), len(own), about + ends) for i, name in enumerate(names)}
    return family | _spread(m, f"{about}|code against the prior")


def _kept(own: Tensor, back: Tensor, centres: Tensor) -> tuple[float, float]:
    """Share of points that come back to their own mode, and to within WITHIN of it."""
    mode, distance = nearest_mode(back, centres)
    same = mode == own
    return float(same.double().mean()), float((same & (distance <= WITHIN * STD)).double().mean())


def _spread(m: Measuring, about: str) -> Family:
    if "sample" not in capabilities(m.model):  # no prior to be like
        return {}
    ratios = [_sd(Space(model).encode(m.real.x, m.real_conditions)) / _sd(drawn_latents(m, model)) for model in (m.model, m.untrained)]
    off = [float((ratio - 1).abs().max()) for ratio in ratios]
    least, most = float(ratios[0].min()), float(ratios[0].max())
    about += f"|sigma={least:.3f} to {most:.3f} of the prior's|ceiling=by definition|control=untrained model"
    return {"same_mode_reconstruction/latent_spread": Measured(off[0], 0.0, off[1], len(m.real.x), about)}


def _sd(z: Tensor) -> Tensor:
    return z.double().flatten(1).std(0, correction=0)
