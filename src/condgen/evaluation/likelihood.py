"""Log-likelihoods, in nats.

Parzen window (Breuleux et al. 2011; the measure of Goodfellow 2014 and Mirza 2014): a Gaussian of width sigma around every
sample,  log p(x) = logmeanexp_j(-|x - s_j|^2 / 2 sigma^2) - d log(sigma sqrt(2 pi)),  sigma chosen on validation data. It
rewards blur (20 principal components beat real faces), so it is reported, never an acceptance criterion.

Bounds of a latent-variable model by its importance weights w = p(x, z|c) / q(z|x, c): the ELBO is E log w, and
log (1/k) sum_i w_i is the tighter bound of Burda et al. 2015, arXiv 1509.00519.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor

from condgen.conditions import Values
from condgen.errors import BadInput
from condgen.evaluation.frechet import as_features, as_pair
from condgen.evaluation.neighbours import squared_distances

SIGMAS = tuple(10 ** (-1 + i / 9) for i in range(10))
"""The usual grid, ten steps from 0.1 to 1."""


class Parzen(NamedTuple):
    """Mean log-likelihood of the test rows in nats, its standard error, and the width that validation chose."""

    mean: float
    standard_error: float
    sigma: float


def parzen(samples: Any, valid: Any, test: Any, sigmas: Sequence[float] = SIGMAS, refine: int = 4) -> Parzen:
    """Of test (m, ...) under a window of samples (n, ...); sigma by valid, on the grid and on `refine` finer steps to either side."""
    sigma = choose_sigma(samples, valid, sigmas)
    if refine and len(sigmas) > 1:
        step = (max(sigmas) / min(sigmas)) ** (1 / (len(sigmas) - 1))
        sigma = choose_sigma(samples, valid, [sigma * step ** (i / (refine + 1)) for i in range(-refine, refine + 1)])
    found = parzen_log_density(samples, test, [sigma])[0]
    return Parzen(float(found.mean()), float(found.std() / math.sqrt(len(found))), sigma)


def choose_sigma(samples: Any, valid: Any, sigmas: Sequence[float] = SIGMAS) -> float:
    """The width of the grid under which the validation rows are likeliest."""
    if not sigmas or min(sigmas) <= 0:
        raise BadInput(f"widths {list(sigmas)}: expected positive numbers")
    return float(sigmas[int(parzen_log_density(samples, valid, sigmas).mean(1).argmax())])


def parzen_log_density(samples: Any, at: Any, sigmas: Sequence[float], chunk: int = 256) -> Tensor:
    """log p of rows at (m, ...) for every width, float64 (len(sigmas), m)."""
    at = torch.as_tensor(at)
    s, x = as_pair(samples, at) if len(torch.as_tensor(samples)) > 1 else (_single(samples), as_features(at))
    centre = s.mean(0)
    s, x = s - centre, x - centre
    log_norm = torch.tensor([s.shape[1] * math.log(sigma * math.sqrt(2 * math.pi)) for sigma in sigmas], dtype=torch.float64)
    scale = [-0.5 / sigma**2 for sigma in sigmas]
    parts = []
    for part in x.split(chunk):
        distance = squared_distances(part, s)
        parts.append(torch.stack([(distance * a).logsumexp(1) for a in scale]))
    return torch.cat(parts, 1) - math.log(len(s)) - log_norm[:, None]


def _single(sample: Any) -> Tensor:
    """A window of one sample (the mean-image control) is allowed here, where `as_features` wants two rows."""
    return torch.as_tensor(sample).detach().to("cpu", torch.float64).flatten(1)


def elbo(model: Any, x: Tensor, c: Values, k: int = 1, seed: int = 0, chunk: int = 500) -> Tensor:
    """The mean over k draws of log w for each x (b, *shape) given c: float64 (b,). `model` has `log_weights(x, c, k)`."""
    return _over_log_weights(model, x, c, k, seed, chunk).mean(0)


def nll_iwae(model: Any, x: Tensor, c: Values, k: int = 100, seed: int = 0, chunk: int = 10000) -> Tensor:
    """-log (1/k) sum_i w_i for each x, float64 (b,): an upper bound of -log p(x|c). At most `chunk` decodes at once."""
    return math.log(k) - _over_log_weights(model, x, c, k, seed, max(1, chunk // k)).logsumexp(0)


@torch.no_grad()
def _over_log_weights(model: Any, x: Tensor, c: Values, k: int, seed: int, chunk: int) -> Tensor:
    """log w in micro-batches, float64 (k, b) on the CPU, with the model in eval mode and its noise seeded; both put back."""
    device, was = model.device, model.training
    shard = model.noise.rank, model.noise.world
    model.eval()
    model.noise.rank, model.noise.world = 0, 1
    model.noise.seed(seed)
    try:
        parts = []
        for i in range(0, len(x), chunk):
            some = {name: v[i : i + chunk].to(device) for name, v in c.items()}
            parts.append(model.log_weights(x[i : i + chunk].to(device), some, k).cpu().double())
    finally:
        model.train(was)
        model.noise.rank, model.noise.world = shard
    return torch.cat(parts, 1)


def binarised(x: Tensor, seed: int = 0) -> Tensor:
    """Pixels in [-1, 1] drawn as -1 or 1 with P(1) = (x + 1) / 2 (dynamic binarisation, Salakhutdinov & Murray 2008)."""
    u = torch.rand(x.shape, generator=Generator().manual_seed(seed))
    return torch.where(u < (x.cpu() + 1) / 2, 1.0, -1.0)
