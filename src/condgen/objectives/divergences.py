"""Divergences between distributions that have a closed form."""

import torch
from jaxtyping import Float
from torch import Tensor


def kl_normal(
    mean_q: Float[Tensor, "b d"], log_var_q: Float[Tensor, "b d"], mean_p: Float[Tensor, "b d"], log_var_p: Float[Tensor, "b d"]
) -> Float[Tensor, "b d"]:
    """KL(q || p) of diagonal normals, in nats, for each dimension (the sum over d is the divergence).

    1/2 [log(var_p / var_q) + (var_q + (mean_q - mean_p)^2) / var_p - 1]
    """
    return 0.5 * (log_var_p - log_var_q + (log_var_q.exp() + (mean_q - mean_p) ** 2) * (-log_var_p).exp() - 1)


def kl_standard_normal(mean: Float[Tensor, "b d"], log_var: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    """KL(N(mean, var) || N(0, 1)) in nats, for each dimension. Kingma & Welling 2013, arXiv 1312.6114, appendix B."""
    return 0.5 * (mean**2 + log_var.exp() - log_var - 1)


def mmd2(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], sigmas: tuple[float, ...]) -> Float[Tensor, ""]:
    """The squared maximum mean discrepancy of two sets of samples under a sum of Gaussian kernels; one number, at least 0.

    E k(x, x') - 2 E k(x, y) + E k(y, y'),  k(x, y) = sum_sigma exp(-|x - y|^2 / 2 sigma^2), pairs of a sample with itself included.
    Gretton et al. 2012; Li et al. 2015, arXiv 1502.02761, equation (3).
    """
    return _kernel(x, x, sigmas).mean() - 2 * _kernel(x, y, sigmas).mean() + _kernel(y, y, sigmas).mean()


def _kernel(x: Tensor, y: Tensor, sigmas: tuple[float, ...]) -> Tensor:
    squared = (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T).clamp(min=0)
    return torch.stack([(squared * (-0.5 / sigma**2)).exp() for sigma in sigmas]).sum(0)
