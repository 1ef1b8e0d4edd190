"""How far a reconstruction is from its original; each sums over the sample, (b, ...) -> (b,)."""

import math

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def squared_error(x: Float[Tensor, "b ..."], target: Float[Tensor, "b ..."]) -> Float[Tensor, " b"]:
    """|x - target|^2."""
    return (x - target).square().flatten(1).sum(1)


def absolute_error(x: Float[Tensor, "b ..."], target: Float[Tensor, "b ..."]) -> Float[Tensor, " b"]:
    """|x - target|, the l1 norm."""
    return (x - target).abs().flatten(1).sum(1)


def bernoulli_nll(logits: Float[Tensor, "b ..."], target: Float[Tensor, "b ..."]) -> Float[Tensor, " b"]:
    """-log Bernoulli(target; sigmoid(logits)) in nats; target in [0, 1], a likelihood only where it is 0 or 1."""
    return F.binary_cross_entropy_with_logits(logits, target, reduction="none").flatten(1).sum(1)


def normal_nll(mean: Float[Tensor, "b ..."], target: Float[Tensor, "b ..."], sigma: float) -> Float[Tensor, " b"]:
    """-log N(target; mean, sigma^2 I) in nats."""
    d = target[0].numel()
    return squared_error(mean, target) / (2 * sigma**2) + d * math.log(sigma * math.sqrt(2 * math.pi))


def normal_log_prob(z: Float[Tensor, "b d"], mean: Float[Tensor, "b d"], log_var: Float[Tensor, "b d"]) -> Float[Tensor, " b"]:
    """log N(z; mean, diag(exp(log_var))) in nats."""
    return -0.5 * ((z - mean) ** 2 * (-log_var).exp() + log_var + math.log(2 * math.pi)).sum(1)
