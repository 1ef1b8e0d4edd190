"""Divergences between distributions that have a closed form."""

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
