"""Penalties on a critic's gradient with respect to its input."""

import torch
from jaxtyping import Float
from torch import Tensor


def squared_gradient(output: Float[Tensor, " b"], x: Float[Tensor, "b ..."]) -> Float[Tensor, " b"]:
    """|d output / d x|^2 for each sample; x must require a gradient.

    R1 is gamma/2 times this on real samples, R2 on fake ones. Mescheder et al. 2018, arXiv 1801.04406, equation (9).
    """
    return _input_gradient(output, x).square().sum(1)


def unit_gradient(output: Float[Tensor, " b"], x: Float[Tensor, "b ..."]) -> Float[Tensor, " b"]:
    """(|d output / d x| - 1)^2 for each sample: WGAN-GP's penalty. Gulrajani et al. 2017, arXiv 1704.00028, equation (3)."""
    return (_input_gradient(output, x).norm(dim=1) - 1).square()


def between(real: Float[Tensor, "b ..."], fake: Float[Tensor, "b ..."], u: Float[Tensor, " b"]) -> Float[Tensor, "b ..."]:
    """Points on the lines from fake to real, u of the way, ready for `unit_gradient`."""
    u = u.reshape(-1, *[1] * (real.dim() - 1))
    return (u * real.detach() + (1 - u) * fake.detach()).requires_grad_()


def _input_gradient(output: Tensor, x: Tensor) -> Tensor:
    # Samples do not mix on the way (no batch statistics in the critic), so the gradient of the sum is each sample's own.
    (gradient,) = torch.autograd.grad(output.sum(), x, create_graph=True)
    return gradient.float().flatten(1)
