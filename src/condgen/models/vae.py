"""Variational autoencoder.

    ELBO(x) = E_q(z|x)[log p(x|z)] - KL(q(z|x) || p(z)),   q(z|x) = N(mu(x), diag sigma(x)^2),   p(z) = N(0, I)     (3)
    z = mu + sigma * eps,   eps ~ N(0, I)                                                                            (4)

Kingma & Welling 2013, arXiv 1312.6114. A Bernoulli likelihood is trained on binary pictures drawn anew at each step
(dynamic binarisation), so that its values are nats of real data; `binarise=False` gives the cross-entropy on grey values.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from condgen.conditions import Schema, Values
from condgen.data.store import Batch
from condgen.errors import BadInput, require_positive, unknown
from condgen.model import Optimizer, Run, Sampler, Shape, Turn
from condgen.networks.conv import ConvEncoder, ConvGenerator
from condgen.networks.mlp import MLP
from condgen.objectives.divergences import kl_standard_normal
from condgen.objectives.reconstruction import bernoulli_nll, normal_log_prob, normal_nll


class Likelihood(nn.Module):
    """p(x|z) from the decoder's raw output: "bernoulli" on pictures read as probabilities, or "normal" with a fixed sigma_x."""

    def __init__(self, kind: str, sigma_x: float, shape: Shape):
        super().__init__()
        if kind not in ("bernoulli", "normal"):
            raise unknown("likelihood", kind, ["bernoulli", "normal"])
        if kind == "bernoulli" and len(shape) != 3:
            raise BadInput(f"a Bernoulli likelihood reads pictures as probabilities; samples of shape {tuple(shape)} want 'normal'")
        self.kind, self.sigma_x = kind, sigma_x

    def nll(self, raw: Tensor, x: Tensor) -> Tensor:
        """-log p(x|z) in nats, (b,); x in [-1, 1]."""
        return bernoulli_nll(raw, (x + 1) / 2) if self.kind == "bernoulli" else normal_nll(raw, x, self.sigma_x)

    def mean(self, raw: Tensor) -> Tensor:
        return 2 * torch.sigmoid(raw) - 1 if self.kind == "bernoulli" else raw


class VAE(Sampler):
    """Encoder and decoder; it reads no conditions.

    Args:
        shape: of a sample; pictures in [-1, 1].
        schema: ignored: the model draws from the whole of the data. `cvae` reads conditions.
        z_dim: dimension of the latent z.
        hidden: widths of the hidden layers of dense encoder and decoder.
        likelihood: "bernoulli", or "normal" with standard deviation `sigma_x`.
        sigma_x: of the normal likelihood, in units of x.
        binarise: draw x ~ Bernoulli((x + 1) / 2) anew at each step (Bernoulli likelihood only).
        warm_up: steps over which the weight of the KL rises from 0 to 1; 0 for none.
        free_bits: least KL that is paid for in each dimension, in nats, averaged over the batch.
        nets: "dense", or "conv" for pictures.
        width: channels at full size of convolutional nets.
    """

    def __init__(
        self,
        shape: Shape,
        schema: Schema | None = None,
        z_dim: int = 20,
        hidden: tuple[int, ...] = (500, 500),
        likelihood: str = "bernoulli",
        sigma_x: float = 0.1,
        binarise: bool = True,
        warm_up: int = 0,
        free_bits: float = 0.0,
        nets: str = "dense",
        width: int = 32,
    ):
        super().__init__(shape, {})
        require_positive(z_dim=z_dim, hidden=hidden, sigma_x=sigma_x, width=width)
        if nets not in ("dense", "conv"):
            raise unknown("nets", nets, ["dense", "conv"])
        self.z_dim, self.warm_up, self.free_bits = z_dim, warm_up, free_bits
        self.likelihood = Likelihood(likelihood, sigma_x, self.shape)
        self.binarise = binarise and likelihood == "bernoulli"
        self.E: nn.Module
        self.G: nn.Module
        if nets == "conv":
            self.E, self.G = ConvEncoder(self.shape, {}, 2 * z_dim, width), ConvGenerator(z_dim, {}, self.shape, width, bounded=False)
        else:
            self.E, self.G = MLP(math.prod(shape), hidden, (2 * z_dim,), {}), MLP(z_dim, hidden[::-1], self.shape, {})

    def turns(self, batch: Batch, step: int) -> Iterator[Turn]:
        x = binary(batch.x, self) if self.binarise else batch.x
        mean, log_var = self.posterior(x)
        raw = self.G(self.draw(mean, log_var), {}).float()  # (4)
        kl = floored(kl_standard_normal(mean, log_var), self.free_bits)
        yield {"model": {"reconstruction": self.likelihood.nll(raw, x), "kl": warmed(step, self.warm_up) * kl}}  # -(3)

    def posterior(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_var = self.E(x, {}).float().chunk(2, 1)
        return mean, log_var

    def draw(self, mean: Tensor, log_var: Tensor) -> Tensor:
        return mean + (log_var / 2).exp() * self.noise.normal(*mean.shape).to(mean.device)

    def prior(self, n: int, c: Values) -> Tensor:
        return self.noise.normal(n, self.z_dim).to(self.device)

    def decode(self, z: Tensor, c: Values) -> Tensor:
        return self.likelihood.mean(self.G(z, {}).float())

    def encode(self, x: Tensor, c: Values) -> Tensor:
        return self.posterior(x)[0]

    def log_weights(self, x: Tensor, c: Values, k: int) -> Tensor:
        mean, log_var = self.posterior(x)
        return torch.stack([self._log_weight(x, mean, log_var) for _ in range(k)])

    def _log_weight(self, x: Tensor, mean: Tensor, log_var: Tensor) -> Tensor:
        z = self.draw(mean, log_var)
        log_joint = -self.likelihood.nll(self.G(z, {}).float(), x) + normal_log_prob(z, torch.zeros_like(z), torch.zeros_like(z))
        return log_joint - normal_log_prob(z, mean, log_var)


def binary(x: Tensor, model: Sampler) -> Tensor:
    """Pictures in {-1, 1}, each pixel drawn with the probability (x + 1) / 2."""
    return 2 * (model.noise.uniform(*x.shape).to(x.device) < (x + 1) / 2).float() - 1


def warmed(step: int, warm_up: int) -> float:
    """The KL's weight: from 0 to 1 over the first `warm_up` steps."""
    return min(1.0, step / warm_up) if warm_up else 1.0


def floored(kl: Tensor, free_bits: float) -> Tensor:
    """The KL (b, d) summed over d; where a dimension's batch mean is below `free_bits`, that dimension gives no gradient."""
    paid = (kl.mean(0) > free_bits).float()
    return (kl * paid + free_bits * (1 - paid)).sum(1) if free_bits else kl.sum(1)


_ADAM = Optimizer(lr=1e-3, betas=(0.9, 0.999), schedule="cosine")
_ENGEL = Run(
    model="vae.VAE",
    data="mnist",
    options={"z_dim": 64, "hidden": (512, 512, 512), "likelihood": "normal", "sigma_x": 0.2},
    optimizers={"*": _ADAM},
    batch=128,
    steps=7000,
    precision="32",
    metrics=("reconstruction", "frechet", "elbo"),
    source="Engel et al. 2017: sigma_x = .1 of pixels in [0, 1], twice that in [-1, 1]",
)

PRESETS = {
    "vae-digits": Run(
        model="vae.VAE",
        data="digits",
        options={"z_dim": 8, "hidden": (256, 256)},
        optimizers={"*": _ADAM},
        precision="32",
        steps=3000,
        source="lecture 002, at the size of the embedded set",
    ),
    "vae-mnist": Run(
        model="vae.VAE",
        data="mnist",
        optimizers={"*": _ADAM},
        batch=128,
        steps=20000,
        precision="32",
        source="lecture 002: 784-500-500-(20, 20)-500-500-784",
    ),
    "vae-mnist-sharp": _ENGEL,
    "vae-mnist-blurred": replace(
        _ENGEL, options=_ENGEL.options | {"sigma_x": 0.6}, source="the same with sigma_x = .3 of pixels in [0, 1]"
    ),
    "vae-mnist-collapsed": replace(
        _ENGEL,
        options=_ENGEL.options | {"sigma_x": 2.0},
        steps=3000,
        source="the same with sigma_x = 1 of pixels in [0, 1], where the posterior collapses",
    ),
    "vae-lfw64": Run(
        model="vae.VAE",
        data="lfw64",
        options={"z_dim": 128, "likelihood": "normal", "sigma_x": 0.2, "nets": "conv", "width": 16},
        optimizers={"*": Optimizer(lr=1e-3, betas=(0.9, 0.99), schedule="late")},
        conditions=("none",),
        batch=32,
        steps=8000,
        half_life_images=20_000,
        metrics=("reconstruction", "frechet", "attribute_auc"),
        source="White 2016 and Engel et al. 2017 on faces, the house's convolutional nets",
    ),
}
