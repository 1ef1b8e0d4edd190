"""Divergences of densities and of samples, and the Gaussian that fits a density best under each. In nats, float64.

    KL[P||Q]  = E_P log P/Q                                                large where Q misses what P has: a fit covers
    KL[Q||P]  = E_Q log Q/P                                                large where Q has what P lacks: a fit picks a mode
    JS_pi     = pi KL[P||M] + (1 - pi) KL[Q||M],  M = pi P + (1 - pi) Q       JS_pi / pi       -> KL[P||Q]  as pi -> 0
                                                                              JS_pi / (1 - pi) -> KL[Q||P]  as pi -> 1
    MMD^2     = E k(x, x') - 2 E k(x, y) + E k(y, y'),  k(x, y) = exp(-|x - y|^2 / 2 h^2)

Theis et al. 2015, arXiv 1511.01844, figure 1; Huszar 2015, arXiv 1511.05101, for JS_pi; Gretton et al. 2012, JMLR 13, for MMD.
Creswell & Bharath 2016 weigh a game by pi,  V(D) = pi E_P log D + (1 - pi) E_Q log(1 - D);  its best D* = pi P / M makes

    V(D*) = JS_pi + pi log pi + (1 - pi) log(1 - pi)                                                                    (1)
    dV(D*)/dQ = (1 - pi) log(1 - D*) = dJS_pi/dQ + (1 - pi) log(1 - pi)                                                 (2)

so that G's minimax loss descends JS_pi (the constant in (2) moves no density, whose mass stays 1). The loss of their code,
-log D* without a weight, has the gradient of KL[Q||P] - JS_pi / (1 - pi) instead, as Arjovsky & Bottou 2017, arXiv 1701.04862,
found at pi = 1/2. The sentence of Creswell & Bharath on the limits of pi has them the wrong way round; their equations, above,
are right.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from condgen.errors import BadInput, require_positive, require_whole, unknown
from condgen.evaluation.frechet import as_pair
from condgen.evaluation.mixtures import Mixture, gaussian
from condgen.evaluation.neighbours import squared_distances

MOST_ROWS = 8192
"""`mmd_test` holds the kernel of all pairs of rows: at this many, half a gigabyte, and thrice that while it is made."""


class Estimate(NamedTuple):
    """A mean over samples, and its standard error."""

    value: float
    standard_error: float


# --- between densities --------------------------------------------------------------------------------------------------------


def kl(p: Mixture, q: Mixture) -> Tensor:
    """KL[P||Q] by quadrature: a tensor of no dimensions, differentiable. Raises BadInput where p and q differ in dimension."""
    _same_dimension(p, q)
    x, w = p.nodes()
    return (w * (p.log_prob(x) - q.log_prob(x))).sum()


def js(p: Mixture, q: Mixture, pi: float = 0.5) -> Tensor:
    """JS_pi[P||Q] by quadrature, as `kl`; pi strictly between 0 and 1, at 1/2 the Jensen-Shannon divergence (at most log 2)."""
    _same_dimension(p, q)
    (x, v), (y, w) = p.nodes(), q.nodes()
    over_p, over_q = p.log_prob(x) - log_between(p, q, x, pi), q.log_prob(y) - log_between(p, q, y, pi)
    return pi * (v * over_p).sum() + (1 - pi) * (w * over_q).sum()


def log_between(p: Mixture, q: Mixture, at: Any, pi: float) -> Tensor:
    """log M of the mixture M = pi P + (1 - pi) Q at points (n, d): (n,)."""
    _require_share(pi)
    return torch.logaddexp(p.log_prob(at) + math.log(pi), q.log_prob(at) + math.log1p(-pi))


def mmd2(p: Mixture, q: Mixture, h: float) -> Tensor:
    """MMD^2 under the Gaussian kernel of bandwidth h, in closed form, of densities in any number of dimensions."""
    _same_dimension(p, q)
    require_positive(h=h)
    return _mean_kernel(p, p, h) - 2 * _mean_kernel(p, q, h) + _mean_kernel(q, q, h)


def _mean_kernel(p: Mixture, q: Mixture, h: float) -> Tensor:
    """E k(x, y): the kernel is h^d (2 pi)^(d/2) times the density of N(0, h^2 I), so each pair is a Gaussian at its difference."""
    covariance = (p.factors @ p.factors.mT)[:, None] + (q.factors @ q.factors.mT)[None]  # (k, l, d, d)
    factor = torch.linalg.cholesky(covariance + h**2 * torch.eye(p.d, dtype=torch.float64))
    apart = (p.means[:, None] - q.means)[..., None]
    u = torch.linalg.solve_triangular(factor, apart, upper=False)[..., 0]
    log_kernel = -0.5 * u.square().sum(-1) - (factor.diagonal(dim1=-2, dim2=-1) / h).log().sum(-1)
    return p.weights @ log_kernel.exp() @ q.weights


def _same_dimension(p: Mixture, q: Mixture) -> None:
    if p.d != q.d:
        raise BadInput(f"densities in {p.d} and in {q.d} dimensions cannot be compared")


def _require_share(pi: float) -> None:
    if not 0 < pi < 1:
        raise BadInput(f"pi is {pi!r}: expected a number between 0 and 1, both left out; at the ends use kl(p, q) and kl(q, p)")


# --- the game that is weighed by pi -------------------------------------------------------------------------------------------


def best_logit(p: Mixture, q: Mixture, at: Any, pi: float) -> Tensor:
    """The logit of D* = pi P / M at points (n, d): (n,)."""
    _require_share(pi)
    return p.log_prob(at) + math.log(pi) - q.log_prob(at) - math.log1p(-pi)


def game_value(p: Mixture, q: Mixture, pi: float) -> Tensor:
    """V(D*) by (1), from JS_pi."""
    return js(p, q, pi) + pi * math.log(pi) + (1 - pi) * math.log1p(-pi)


def game_value_samples(p: Mixture, q: Mixture, x: Any, y: Any, pi: float) -> Estimate:
    """V(D*) as a game meets it: log D* averaged over x (n, d) from P, and log(1 - D*) over y (m, d) from Q."""
    return _weighed(F.logsigmoid(best_logit(p, q, x, pi)), F.logsigmoid(-best_logit(p, q, y, pi)), pi)


def minimax_gradient(p: Mixture, q: Mixture, at: Any, pi: float) -> Tensor:
    """What G's minimax loss gains per mass of Q at points (n, d), with D* held: (1 - pi) log(1 - D*), (n,)."""
    return (1 - pi) * F.logsigmoid(-best_logit(p, q, at, pi))


def js_gradient(p: Mixture, q: Mixture, at: Any, pi: float) -> Tensor:
    """dJS_pi/dQ at points (n, d): (1 - pi) log(Q / M), (n,). What M's dependence on Q adds is pi P / M + (1 - pi) Q / M - 1 = 0."""
    return (1 - pi) * (q.log_prob(at) - log_between(p, q, at, pi))


# --- between samples ----------------------------------------------------------------------------------------------------------


def kl_samples(p: Mixture, q: Mixture, x: Any) -> Estimate:
    """KL[P||Q] by both densities at samples x (n, d) of P, n of at least 2."""
    ratio = p.log_prob(x) - q.log_prob(x)
    return Estimate(float(ratio.mean()), _squared_error(ratio) ** 0.5)


def js_samples(p: Mixture, q: Mixture, x: Any, y: Any, pi: float = 0.5) -> Estimate:
    """JS_pi by the densities at samples x (n, d) of P and y (m, d) of Q."""
    return _weighed(p.log_prob(x) - log_between(p, q, x, pi), q.log_prob(y) - log_between(p, q, y, pi), pi)


def _weighed(of_p: Tensor, of_q: Tensor, pi: float) -> Estimate:
    value = pi * float(of_p.mean()) + (1 - pi) * float(of_q.mean())
    return Estimate(value, (pi**2 * _squared_error(of_p) + (1 - pi) ** 2 * _squared_error(of_q)) ** 0.5)


def _squared_error(values: Tensor) -> float:
    if len(values) < 2:
        raise BadInput(f"{len(values)} samples: expected at least 2")
    return float(values.var()) / len(values)


def mmd2_samples(first: Any, second: Any, sigmas: Sequence[float], unbiased: bool = True, chunk: int = 1024) -> float:
    """MMD^2 of samples (n, d) and (m, d), summed over Gaussian kernels of bandwidths `sigmas`.

    Args:
        unbiased: leaves a sample's kernel with itself out: 0 on average for equal distributions, of either sign. Else at
            least 0, the squared norm that a generative moment matching net descends (Li et al. 2015, arXiv 1502.02761).
        chunk: rows at once.

    Raises:
        BadInput: for fewer than two rows, NaN, dimensions that differ, or bandwidths that are not above 0.
    """
    x, y = as_pair(first, second)
    _require_bandwidths(sigmas)
    centre = x.mean(0)
    x, y = x - centre, y - centre
    same = [_kernel_sum(v, v, sigmas, chunk) - unbiased * len(v) * len(sigmas) for v in (x, y)]
    pairs = [len(v) * (len(v) - unbiased) for v in (x, y)]
    return same[0] / pairs[0] + same[1] / pairs[1] - 2 * _kernel_sum(x, y, sigmas, chunk) / (len(x) * len(y))


def _kernel_sum(x: Tensor, y: Tensor, sigmas: Sequence[float], chunk: int) -> float:
    return sum(float(_kernels(part, y, sigmas).sum()) for part in x.split(chunk))


def _kernels(x: Tensor, y: Tensor, sigmas: Sequence[float]) -> Tensor:
    squared = squared_distances(x, y)
    total = torch.zeros_like(squared)
    for sigma in sigmas:
        total += squared.mul(-0.5 / sigma**2).exp_()
    return total


def _require_bandwidths(sigmas: Sequence[float]) -> None:
    if not isinstance(sigmas, Sequence) or not sigmas:
        raise BadInput(f"sigmas is {sigmas!r}: expected bandwidths, such as (1.0, 2.0)")
    require_positive(sigmas=sigmas)


class TwoSample(NamedTuple):
    """The unbiased MMD^2, and how often a random split of the same rows has one as large."""

    mmd2: float
    p_value: float


def mmd_test(first: Any, second: Any, sigmas: Sequence[float], permutations: int = 500, seed: int = 0) -> TwoSample:
    """Are samples (n, d) and (m, d) of one distribution? A small p-value says no.

    p = (1 + splits as far apart) / (1 + permutations), never 0, which keeps the level exact (Phipson & Smyth 2010).

    Raises:
        BadInput: as `mmd2_samples`, or for more than `MOST_ROWS` rows in all.
    """
    x, y = as_pair(first, second)
    _require_bandwidths(sigmas)
    require_whole("permutations", permutations, 1)
    if len(x) + len(y) > MOST_ROWS:
        raise BadInput(f"{len(x):,} and {len(y):,} rows: a permutation test takes at most {MOST_ROWS:,} in all; give it a part of them")
    rows = torch.cat([x, y]) - x.mean(0)
    values = _of_splits(_kernels(rows, rows, sigmas), _splits(len(x), len(rows), permutations, seed))
    as_far = int((values[1:] >= values[0] - 1e-12).sum())  # rows that repeat give splits that tie but for rounding
    return TwoSample(float(values[0]), (1 + as_far) / (1 + permutations))


def _splits(n: int, total: int, permutations: int, seed: int) -> Tensor:
    """1 where a row is of the first sample, (1 + permutations, total): the split that was given, then random ones."""
    order = torch.rand(permutations, total, generator=Generator().manual_seed(seed)).argsort(1)
    return (torch.cat([torch.arange(total)[None], order]) < n).double()


def _of_splits(kernel: Tensor, first: Tensor) -> Tensor:
    """The unbiased MMD^2 of every split, (b,), from the kernel of all pairs."""
    kernel = kernel.fill_diagonal_(0)
    n, total = int(first[0].sum()), first.shape[1]
    m = total - n
    xx = ((first @ kernel) * first).sum(1)
    x_all = first @ kernel.sum(1)
    xy, yy = x_all - xx, kernel.sum() - 2 * x_all + xx
    return xx / (n * (n - 1)) + yy / (m * (m - 1)) - 2 * xy / (n * m)


# --- fits ---------------------------------------------------------------------------------------------------------------------

CRITERIA: dict[str, Callable[[Mixture, Mixture, float, float], Tensor]] = {
    "kl": lambda p, q, pi, h: kl(p, q),
    "reverse_kl": lambda p, q, pi, h: kl(q, p),
    "js": lambda p, q, pi, h: js(p, q, pi),
    "mmd": lambda p, q, pi, h: mmd2(p, q, h),
}
"""What `fit` can descend: KL[P||Q], KL[Q||P], JS_pi, MMD^2."""


class Fit(NamedTuple):
    """A Gaussian `q`, its mean (a number in one dimension, else d of them), root mean variance, and what it costs."""

    mean: Any
    sigma: float
    value: float
    q: Mixture


def fit(
    p: Mixture, criterion: str, *, pi: float = 0.5, h: float = 1.0, starts: Sequence[tuple[Any, float]] | None = None, full: bool = False
) -> Fit:
    """The Gaussian that minimises a criterion against p: the best of descents from several starts.

    Args:
        p: the target, in one or two dimensions (by "mmd" in any).
        criterion: a key of `CRITERIA`.
        pi: weight of P in "js".
        h: bandwidth of "mmd".
        starts: (mean, sigma) pairs, by default `start_points(p)`. One alone finds the local optimum that it leads to:
            KL[Q||P] has one at every mode that stands apart.
        full: fit a whole covariance, else sigma^2 I.

    Raises:
        BadInput: for an unknown criterion, no start, or a start, pi or h out of range.
    """
    if criterion not in CRITERIA:
        raise unknown("criterion", criterion, CRITERIA)
    starts = start_points(p) if starts is None else starts
    if not starts:
        raise BadInput("a fit needs at least one start, (mean, sigma)")
    firsts = [gaussian(mean, sigma) for mean, sigma in starts]
    for first in firsts:
        _same_dimension(p, first)
    return min((_descend(p, lambda q: CRITERIA[criterion](p, q, pi, h), q, full) for q in firsts), key=lambda found: found.value)


def start_points(p: Mixture) -> list[tuple[list[float], float]]:
    """Where a fit of p may begin: all of p, at its width and at half of it; and every component, at its width and at twice that."""
    widths = [float((L @ L.T).trace() / p.d) ** 0.5 for L in p.factors]
    each = [(mean.tolist(), scale * width) for mean, width in zip(p.means, widths, strict=True) for scale in (1.0, 2.0)]
    return [(p.mean().tolist(), p.sigma()), (p.mean().tolist(), p.sigma() / 2), *each]


def _descend(p: Mixture, cost: Callable[[Mixture], Tensor], start: Mixture, full: bool) -> Fit:
    from scipy.optimize import minimize

    def with_gradient(values: Any) -> tuple[float, Any]:
        theta = torch.tensor(values, dtype=torch.float64, requires_grad=True)
        value = cost(_gaussian_of(theta, p.d, full))
        (gradient,) = torch.autograd.grad(value, theta)
        return float(value.detach()), gradient.numpy()

    d, sigma = p.d, float(start.factors[0, 0, 0])
    free = d * (d - 1) // 2 if full else 0
    theta = [*start.means[0].tolist(), *[math.log(sigma)] * (d if full else 1), *[0.0] * free]
    # Widths that no grid resolves, and where gradients vanish, are out of bounds; but a start is where it was asked to be.
    low, high = math.log(min(sigma, p.sigma() / 100)), math.log(max(sigma, p.sigma() * 100))
    bounds = [(None, None)] * d + [(low, high)] * (d if full else 1) + [(None, None)] * free
    found = minimize(with_gradient, theta, jac=True, method="L-BFGS-B", bounds=bounds, options={"ftol": 1e-14, "gtol": 1e-9})
    q = _gaussian_of(torch.as_tensor(found.x), d, full)
    return Fit(float(q.means) if d == 1 else tuple(q.means[0].tolist()), q.sigma(), float(found.fun), q)


def _gaussian_of(theta: Tensor, d: int, full: bool) -> Mixture:
    """Mean (d,), then the logarithm of L's diagonal (one for all axes unless `full`), then what is below it."""
    diagonal = theta[d : 2 * d] if full else theta[d : d + 1].expand(d)
    factor = torch.diag(diagonal.exp())
    if full:
        row, column = torch.tril_indices(d, d, offset=-1)
        factor = factor.index_put((row, column), theta[2 * d :])
    return Mixture(torch.ones(1, dtype=torch.float64), theta[None, :d], factor[None])
