"""Penalties on a critic's gradient with respect to its input."""

import math

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


def path_lengths(x: Float[Tensor, "b ch h w"], w: Float[Tensor, "b layers d"], y: Float[Tensor, "b ch h w"]) -> Float[Tensor, " b"]:
    """|J^T y| for pictures x that were drawn of w: how far a picture moves when w does, in a random direction y of N(0, 1) a pixel.

    The square is averaged over layers, and y scaled so that its length does not depend on the resolution. Karras et al. 2019, arXiv
    1912.04958, equation (4) and appendix B.
    """
    toward = (x * y).sum() / math.sqrt(x.shape[2] * x.shape[3])
    (gradient,) = torch.autograd.grad(toward, w, create_graph=True)
    return (gradient.float().square().sum(2).mean(1) + 1e-12).sqrt()


def _input_gradient(output: Tensor, x: Tensor) -> Tensor:
    # Where samples do not mix on the way (no batch statistics in the critic), the gradient of the sum is each sample's own. A channel of
    # minibatch deviation mixes a group's: the penalty is then of the group's logits, as it is in the published code.
    (gradient,) = torch.autograd.grad(output.sum(), x, create_graph=True)
    return gradient.float().flatten(1)
