"""Gaussian mixtures whose density is known, and expectations under them by quadrature.

    p(x) = sum_k w_k N(x; m_k, L_k L_k^T),      E_p f = sum_k w_k E_u f(m_k + L_k u),  u ~ N(0, I)

What a divergence does to a fit can be seen only where nothing else can go wrong: here no net, no sampling error. All is
float64 and differentiable in weights, means and factors, so that a fit can descend its exact gradient.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Generator, Tensor

from condgen.errors import BadInput, require_whole

GRIDS = {1: (2001, 10.0), 2: (81, 8.0)}
"""Nodes on an axis, and how many standard deviations they reach to either side. A trapezoid of a Gaussian converges faster
than any power of its step; a density 20 times (2-D: 3 times) as narrow as the one it is averaged under is still resolved."""


@dataclass(frozen=True, eq=False)
class Mixture:
    """Weights (k,), means (k, d) and lower triangular factors L (k, d, d) of the covariances; made by `mixture` or `gaussian`."""

    weights: Tensor
    means: Tensor
    factors: Tensor

    @property
    def d(self) -> int:
        return self.means.shape[1]

    def log_prob(self, x: Any) -> Tensor:
        """log p in nats, float64 (n,), at points (n, d), or (n,) in one dimension. Raises BadInput for another dimension."""
        inverse = torch.linalg.inv(self.factors)
        u = torch.einsum("kij,nkj->nki", inverse, self._points(x)[:, None] - self.means)
        log_normal = -0.5 * u.square().sum(-1) + _log_diagonal(inverse).sum(-1) - self.d / 2 * math.log(2 * math.pi)
        return (log_normal + self.weights.log()).logsumexp(1)

    def sample(self, n: int, generator: Generator | None = None) -> Tensor:
        """n independent draws, float64 (n, d)."""
        require_whole("n", n, 1)
        k = torch.multinomial(self.weights, n, replacement=True, generator=generator)
        u = torch.randn(n, self.d, 1, dtype=torch.float64, generator=generator)
        return self.means[k] + (self.factors[k] @ u)[..., 0]

    def nodes(self) -> tuple[Tensor, Tensor]:
        """Points (m, d) and weights (m,) of the quadrature: E_p f is about (weights * f(points)).sum().

        Raises:
            BadInput: in three dimensions and more, where a grid has too many nodes.
        """
        u, w = standard_nodes(self.d)
        points = self.means[:, None] + u @ self.factors.mT
        return points.flatten(0, 1), (self.weights[:, None] * w).flatten()

    def mean(self) -> Tensor:
        """(d,)"""
        return self.weights @ self.means

    def covariance(self) -> Tensor:
        """(d, d): the mean of the covariances and the covariance of the means."""
        apart = self.means - self.mean()
        each = self.factors @ self.factors.mT + apart[:, :, None] * apart[:, None, :]
        return torch.einsum("k,kij->ij", self.weights, each)

    def sigma(self) -> float:
        """The root mean variance of an axis: in one dimension the standard deviation."""
        return float((self.covariance().trace() / self.d).sqrt())

    def _points(self, x: Any) -> Tensor:
        points = torch.as_tensor(x, dtype=torch.float64)
        points = points[:, None] if points.dim() == 1 and self.d == 1 else points
        if points.dim() != 2 or points.shape[1] != self.d:
            raise BadInput(f"points of shape {tuple(points.shape)}: expected (n, {self.d}) for a density in {self.d} dimensions")
        return points


def mixture(weights: Sequence[float], means: Any, sigmas: Any = None, covariances: Any = None) -> Mixture:
    """Components of standard deviations `sigmas` (k,), the same along all axes, or else of `covariances` (k, d, d).

    Args:
        weights: (k,), above 0, of sum 1.
        means: (k,) in one dimension, else (k, d).

    Raises:
        BadInput: for weights of another sum, lengths that differ, or what is no standard deviation or covariance.

    >>> float(mixture([0.5, 0.5], [-1, 1], [1, 1]).covariance())
    2.0
    """
    w, m = (torch.as_tensor(v, dtype=torch.float64) for v in (weights, means))
    m = m[:, None] if m.dim() == 1 else m
    if w.dim() != 1 or m.dim() != 2 or len(w) != len(m) or not bool(torch.isfinite(m).all()):
        raise BadInput(f"{tuple(w.shape)} weights and means of shape {tuple(m.shape)}: expected (k,) and (k, d) finite numbers")
    if not bool((w > 0).all()) or abs(float(w.sum()) - 1) > 1e-6:
        raise BadInput(f"weights {w.tolist()}: expected numbers above 0 whose sum is 1")
    if (sigmas is None) == (covariances is None):
        raise BadInput("a mixture takes sigmas or covariances, one of the two")
    factors = _isotropic(sigmas, *m.shape) if covariances is None else _cholesky(covariances, *m.shape)
    return Mixture(w / w.sum(), m, factors)


def gaussian(mean: Any, sigma: float) -> Mixture:
    """N(mean, sigma^2 I), of one component; a mean that is a number is a Gaussian in one dimension."""
    return mixture([1.0], torch.as_tensor(mean, dtype=torch.float64).reshape(1, -1), [sigma])


def _isotropic(sigmas: Any, k: int, d: int) -> Tensor:
    s = torch.as_tensor(sigmas, dtype=torch.float64)
    if s.shape != (k,) or not bool((s > 0).all()) or not bool(torch.isfinite(s).all()):
        raise BadInput(f"sigmas {s.tolist()}: expected {k} finite numbers above 0")
    return s[:, None, None] * torch.eye(d, dtype=torch.float64)


def _cholesky(covariances: Any, k: int, d: int) -> Tensor:
    c = torch.as_tensor(covariances, dtype=torch.float64)
    if c.shape != (k, d, d) or not torch.allclose(c, c.mT):
        raise BadInput(f"covariances of shape {tuple(c.shape)}: expected {k} symmetric matrices of {d} x {d}")
    factors, failed = torch.linalg.cholesky_ex(c)
    if bool(failed.any()):
        raise BadInput(f"covariance {c[failed > 0][0].tolist()} is not positive definite")
    return factors


def _log_diagonal(factors: Tensor) -> Tensor:
    return factors.diagonal(dim1=-2, dim2=-1).log()


@cache
def standard_nodes(d: int) -> tuple[Tensor, Tensor]:
    """Points (m, d) and weights (m,) of sum 1 for an expectation under N(0, I)."""
    if d not in GRIDS:
        raise BadInput(f"quadrature in {d} dimensions: only densities in {' or '.join(map(str, GRIDS))} have one")
    n, reach = GRIDS[d]
    axis = torch.linspace(-reach, reach, n, dtype=torch.float64)
    points = torch.cartesian_prod(*[axis] * d).reshape(-1, d)
    w = torch.exp(-0.5 * points.square().sum(1))
    return points, w / w.sum()


MIXTURES = {
    "A": mixture([0.7, 0.3], [-2.0, 2.0], [0.5, 0.5]),  # modes far apart: a Gaussian covers both or picks one
    "B": mixture([0.6, 0.4], [-1.5, 1.5], [0.6, 0.9]),  # modes that overlap: every criterion covers
}
"""Two targets in one dimension, on which the criteria of `divergences.fit` are compared."""
