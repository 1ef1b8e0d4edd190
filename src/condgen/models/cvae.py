"""Conditional variational autoencoder with a learned prior.

    ELBO(x|c) = E_q(z|x,c)[log p(x|z,c)] - KL(q(z|x,c) || p(z|c)),   p(z|c) = N(mu_p(c), diag sigma_p(c)^2)       (4)
    L = alpha ELBO + (1 - alpha) E_p(z|c)[log p(x|z,c)]                                    the GSNN mix             (6)

Sohn, Lee & Yan 2015, "Learning structured output representation using deep conditional generative models". That paper
conditions on x and predicts y; here, as in lecture 002, c is what is given and x what is drawn.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from condgen.conditions import Schema, Values
from condgen.data.store import Batch
from condgen.errors import BadInput, require_positive
from condgen.model import Optimizer, Run, Sampler, Shape, Turn
from condgen.models.vae import Likelihood, binary, floored, warmed
from condgen.networks.mlp import MLP
from condgen.objectives.divergences import kl_normal
from condgen.objectives.reconstruction import normal_log_prob


class CVAE(Sampler):
    """Conditions are read by encoder, decoder and prior.

    Args:
        shape: of a sample; pictures in [-1, 1].
        schema: the conditions, at least one; any that `embed` knows.
        z_dim: dimension of the latent z.
        hidden: widths of the hidden layers of encoder and decoder.
        prior_hidden: width of the prior's hidden layer; 0 keeps the prior at N(0, I).
        gsnn_alpha: alpha of (6); 1 is the plain bound.
        likelihood, sigma_x, binarise, warm_up, free_bits: as in `vae.VAE`.
    """

    def __init__(
        self,
        shape: Shape,
        schema: Schema,
        z_dim: int = 20,
        hidden: tuple[int, ...] = (500, 500),
        prior_hidden: int = 128,
        gsnn_alpha: float = 1.0,
        likelihood: str = "bernoulli",
        sigma_x: float = 0.1,
        binarise: bool = True,
        warm_up: int = 0,
        free_bits: float = 0.0,
    ):
        super().__init__(shape, schema)
        require_positive(z_dim=z_dim, hidden=hidden, sigma_x=sigma_x)
        if not schema:
            raise BadInput("cvae needs at least one condition; the data has none: use vae, or add labels")
        self.z_dim, self.gsnn_alpha, self.warm_up, self.free_bits = z_dim, gsnn_alpha, warm_up, free_bits
        self.likelihood = Likelihood(likelihood, sigma_x, self.shape)
        self.binarise = binarise and likelihood == "bernoulli"
        self.E = MLP(math.prod(shape), hidden, (2 * z_dim,), schema)
        self.G = MLP(z_dim, hidden[::-1], self.shape, schema)
        self.P = MLP(0, (prior_hidden,), (2 * z_dim,), schema) if prior_hidden else None
        if self.P is not None:  # starts as N(0, I)
            for p in self.P.layers[-1].parameters():
                torch.nn.init.zeros_(p)

    def turns(self, batch: Batch, step: int) -> Iterator[Turn]:
        x, c = binary(batch.x, self) if self.binarise else batch.x, batch.c
        mean, log_var = self.posterior(x, c)
        mean_p, log_var_p = self.prior_of(c, len(x))
        nll = self.likelihood.nll(self.G(self.draw(mean, log_var), c), x)
        kl = floored(kl_normal(mean, log_var, mean_p, log_var_p), self.free_bits)
        terms = {"reconstruction": self.gsnn_alpha * nll, "kl": self.gsnn_alpha * warmed(step, self.warm_up) * kl}  # -(4)
        if self.gsnn_alpha < 1:  # (6): what sampling will do, z from the prior
            terms["gsnn"] = (1 - self.gsnn_alpha) * self.likelihood.nll(self.G(self.draw(mean_p, log_var_p), c), x)
        yield {"model": terms}

    def posterior(self, x: Tensor, c: Values) -> tuple[Tensor, Tensor]:
        mean, log_var = self.E(x, c).float().chunk(2, 1)
        return mean, log_var

    def prior_of(self, c: Values, n: int) -> tuple[Tensor, Tensor]:
        """Mean and log-variance of p(z|c), (n, z_dim) each. log sigma_p stays in [-4, 2], else q and p may shrink together without end."""
        zeros = torch.zeros(n, self.z_dim, device=self.device)
        if self.P is None:
            return zeros, zeros
        mean, log_var = self.P(zeros[:, :0], c).float().chunk(2, 1)
        return mean, log_var.clamp(-8, 4)

    def draw(self, mean: Tensor, log_var: Tensor) -> Tensor:
        return mean + (log_var / 2).exp() * self.noise.normal(*mean.shape).to(mean.device)

    def prior(self, n: int, c: Values) -> Tensor:
        return self.draw(*self.prior_of(c, n))

    def decode(self, z: Tensor, c: Values) -> Tensor:
        return self.likelihood.mean(self.G(z, c).float())

    def encode(self, x: Tensor, c: Values) -> Tensor:
        return self.posterior(x, c)[0]

    def log_weights(self, x: Tensor, c: Values, k: int) -> Tensor:
        q, p = self.posterior(x, c), self.prior_of(c, len(x))
        return torch.stack([self._log_weight(x, c, q, p) for _ in range(k)])

    def _log_weight(self, x: Tensor, c: Values, q: tuple[Tensor, Tensor], p: tuple[Tensor, Tensor]) -> Tensor:
        z = self.draw(*q)
        return -self.likelihood.nll(self.G(z, c).float(), x) + normal_log_prob(z, *p) - normal_log_prob(z, *q)


_ADAM = Optimizer(lr=1e-3, betas=(0.9, 0.999), schedule="cosine")
_MNIST = Run(
    model="cvae.CVAE",
    data="mnist",
    optimizers={"*": _ADAM},
    batch=128,
    options={"z_dim": 8},
    steps=14000,
    precision="32",
    source="lecture 002: encoder and decoder 500-500, prior 128; 8 latents, not 20, which leave holes that the prior falls into",
)

PRESETS = {
    "cvae-digits": Run(
        model="cvae.CVAE",
        data="digits",
        options={"z_dim": 8, "hidden": (256, 256)},
        optimizers={"*": _ADAM},
        precision="32",
        steps=3000,
        source="lecture 002, at the size of the embedded set",
    ),
    "cvae-mnist": _MNIST,
    "cvae-mnist-fixed-prior": replace(_MNIST, options={"z_dim": 8, "prior_hidden": 0}, source="as cvae-mnist, with p(z|c) = N(0, I)"),
}
