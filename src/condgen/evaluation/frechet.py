"""Distances between two sets of features: Fréchet (of Gaussians fitted to them) and kernel (a squared MMD).

    frechet = |mu1 - mu2|^2 + Tr(S1 + S2 - 2 (S1 S2)^(1/2))          Dowson & Landau 1982; Heusel et al. 2017, arXiv 1706.08500
    kernel  = E k(x, x') + E k(y, y') - 2 E k(x, y),  k(x, y) = (x.y / d + 1)^3       Binkowski et al. 2018, arXiv 1801.01401

Covariances divide by n - 1. Everything is float64: in float32 the trace is off by tenths (256 features of 512-d: 0.36).
The Fréchet distance of two samples of one distribution is not 0 but falls as 1/n, so compare equal n only; the kernel
distance is unbiased.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from condgen.errors import BadInput


class Frechet(NamedTuple):
    """A distance, and the negative mass that rounding produced and that was set to 0 (about 0 in a healthy case)."""

    value: float
    clamped: float


def as_features(features: Any) -> Tensor:
    """Array or tensor (n, ...) as float64 (n, d) on the CPU. Raises BadInput for fewer than two rows, or NaN."""
    x = torch.as_tensor(features).detach().to("cpu", torch.float64)
    if x.dim() < 2 or len(x) < 2:
        raise BadInput(f"features of shape {tuple(x.shape)}: expected (n, d) with n of at least 2")
    x = x.flatten(1)
    if not bool(torch.isfinite(x).all()):
        raise BadInput("the features hold a value that is not a finite number")
    return x


def as_pair(first: Any, second: Any) -> tuple[Tensor, Tensor]:
    """Both by `as_features`; raises BadInput where their dimensions differ."""
    x, y = as_features(first), as_features(second)
    if x.shape[1] != y.shape[1]:
        raise BadInput(f"features of {x.shape[1]} and of {y.shape[1]} dimensions cannot be compared")
    return x, y


def frechet(first: Any, second: Any) -> float:
    """The Fréchet distance of features (n, d) and (m, d); symmetric, at least 0."""
    return frechet_of_features(first, second).value


def frechet_of_features(first: Any, second: Any) -> Frechet:
    """As `frechet`, with what was clamped. With fewer rows than dimensions the trace is a nuclear norm, which is exact there."""
    x, y = as_pair(first, second)
    if min(len(x), len(y)) >= x.shape[1]:
        return frechet_of_moments(x.mean(0), x.T.cov(), y.mean(0), y.T.cov())
    a, b = _whitened_rows(x), _whitened_rows(y)
    trace = torch.linalg.matrix_norm(a @ b.T, ord="nuc")
    return _clamp((x.mean(0) - y.mean(0)).square().sum() + a.square().sum() + b.square().sum() - 2 * trace)


def frechet_of_moments(mean1: Any, cov1: Any, mean2: Any, cov2: Any) -> Frechet:
    """The distance of N(mean1, cov1) and N(mean2, cov2); means (d,), covariances (d, d)."""
    m1, s1, m2, s2 = (torch.as_tensor(v).to("cpu", torch.float64) for v in (mean1, cov1, mean2, cov2))
    values, vectors = torch.linalg.eigh(s1)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    inner = torch.linalg.eigvalsh(root @ s2 @ root)  # S1^(1/2) S2 S1^(1/2) has the spectrum of S1 S2, and is symmetric
    negative = float(-values.clamp(max=0).sum() - inner.clamp(max=0).sum())
    total = (m1 - m2).square().sum() + s1.trace() + s2.trace() - 2 * inner.clamp(min=0).sqrt().sum()
    return _clamp(total, negative)


def _whitened_rows(x: Tensor) -> Tensor:
    """A, at most (d, d), with A^T A = cov(x): the singular values of A B^T are those of Xc Yc^T / sqrt((n-1)(m-1))."""
    centred = (x - x.mean(0)) / math.sqrt(len(x) - 1)
    return torch.linalg.qr(centred, mode="r").R if len(x) > x.shape[1] else centred


def _clamp(total: Tensor, negative: float = 0.0) -> Frechet:
    return Frechet(max(float(total), 0.0), negative + max(-float(total), 0.0))


def kernel(first: Any, second: Any) -> float:
    """The unbiased kernel distance of features (n, d) and (m, d), over all pairs; about 0 (either sign) for equal distributions."""
    x, y = as_pair(first, second)
    return _same(x) + _same(y) - 2 * _kernel_sum(x, y) / (len(x) * len(y))


def kernel_subsets(first: Any, second: Any, subsets: int = 100, size: int = 1000, seed: int = 0) -> tuple[float, float]:
    """Mean and standard deviation of `kernel` over random subsets of `size` rows of each, drawn without replacement."""
    x, y = as_pair(first, second)
    if size > min(len(x), len(y)):
        raise BadInput(f"subsets of {size} rows from {len(x)} and {len(y)}: choose a size of at most {min(len(x), len(y))}")
    generator = Generator().manual_seed(seed)
    values = torch.tensor([kernel(_some(x, size, generator), _some(y, size, generator)) for _ in range(subsets)], dtype=torch.float64)
    return float(values.mean()), float(values.std(correction=0))


def _some(x: Tensor, size: int, generator: Generator) -> Tensor:
    return x[torch.randperm(len(x), generator=generator)[:size]]


def _same(x: Tensor) -> float:
    """Mean of k over pairs of different rows."""
    diagonal = float((x.square().sum(1) / x.shape[1] + 1).pow(3).sum())
    return (_kernel_sum(x, x) - diagonal) / (len(x) * (len(x) - 1))


def _kernel_sum(x: Tensor, y: Tensor, chunk: int = 256) -> float:
    ones = x.new_ones(1, 1)
    return sum(float(torch.addmm(ones, part, y.T, alpha=1 / x.shape[1]).pow_(3).sum()) for part in x.split(chunk))
