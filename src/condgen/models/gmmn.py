"""Generative moment matching networks.

    L^2 = E k(x, x') - 2 E k(x, y) + E k(y, y'),   k(x, y) = sum_sigma exp(-|x - y|^2 / 2 sigma^2)          (3)

The maximum mean discrepancy of a batch of samples and one of data, whose root is descended: no adversary. It is of a set, not a mean over
samples: each process, and each part of a batch that was cut for want of memory, matches its own. Li, Swersky & Zemel
2015, arXiv 1502.02761, and the released code (root of L^2, its kernels and layers). `GMMNAE` matches in the code space of an
autoencoder that is trained for the first `ae_steps` steps (section 4; G moves from the start, towards codes that move).

Deviations: Adam in place of SGD with a rate of 2, batches of 500 in place of 1,000 (the gradient of L^2 is as true, a step a third of the
work); the autoencoder is trained whole, not layer by layer.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from condgen.conditions import Schema, Values
from condgen.data.store import Batch
from condgen.errors import BadInput, require_positive, require_range, require_whole
from condgen.model import Optimizer, Run, Sampler, Shape, Turn
from condgen.networks.mlp import MLP
from condgen.objectives.divergences import mmd2
from condgen.objectives.reconstruction import squared_error

SIGMAS = tuple(math.sqrt(v) for v in (2, 5, 10, 20, 40, 80))
"""The released code's kernels are exp(-|x - y|^2 / 2 s) with these s: they are variances."""


class GMMN(Sampler):
    """Matches moments of the samples themselves: pictures in [0, 1], points as they are.

    Args:
        shape: of a sample; pictures in [-1, 1].
        schema: ignored: the model draws from the whole of the data.
        z_dim: dimension of z, uniform in [-1, 1].
        hidden: widths of the rectified layers.
        sigmas: widths of the kernels, in units of the sample space.
        weight: of the loss; it decides the size of a step under SGD alone.
    """

    def __init__(
        self,
        shape: Shape,
        schema: Schema | None = None,
        z_dim: int = 10,
        hidden: tuple[int, ...] = (64, 256, 256, 1024),
        sigmas: tuple[float, ...] = SIGMAS,
        weight: float = 1.0,
    ):
        super().__init__(shape, {})
        require_positive(z_dim=z_dim, hidden=hidden)
        check_sigmas(sigmas)
        self.z_dim, self.sigmas, self.weight = z_dim, tuple(sigmas), weight
        self.G = MLP(z_dim, hidden, self.shape, {})

    def players(self) -> dict[str, list[nn.Module]]:
        return {"G": [self.G]}

    def turns(self, batch: Batch, step: int) -> Iterator[Turn]:
        y = self.decode(self.prior(len(batch.x), batch.c), batch.c)
        yield {"G": {"mmd": self.weight * root_mmd(unit(batch.x), unit(y), self.sigmas)}}

    def prior(self, n: int, c: Values) -> Tensor:
        return uniform_noise(self, n)

    def decode(self, z: Tensor, c: Values) -> Tensor:
        x = self.G(z, c).float()
        return 2 * torch.sigmoid(x) - 1 if len(self.shape) == 3 else x


class GMMNAE(Sampler):
    """Matches moments in the code of an autoencoder, which is trained for `ae_steps` and then left as it is.

    Args:
        shape, schema, z_dim, hidden, weight: as of `GMMN`.
        code_dim: of the autoencoder, whose codes lie in [0, 1].
        ae_hidden: widths of its encoder's layers, mirrored in its decoder.
        ae_steps: for how long it is trained.
        dropout: on its input and on its hidden layers, in the encoder.
        sigmas: widths of the kernels in code space.
    """

    def __init__(
        self,
        shape: Shape,
        schema: Schema | None = None,
        z_dim: int = 10,
        hidden: tuple[int, ...] = (64, 256, 256, 1024),
        code_dim: int = 32,
        ae_hidden: tuple[int, ...] = (1024,),
        ae_steps: int = 3000,
        dropout: tuple[float, float] = (0.2, 0.5),
        sigmas: tuple[float, ...] = (1.0,),
        weight: float = 1.0,
    ):
        super().__init__(shape, {})
        require_whole("ae_steps", ae_steps, 0)
        require_range(0, 1, dropout=dropout)
        require_positive(z_dim=z_dim, hidden=hidden, code_dim=code_dim, ae_hidden=ae_hidden)
        check_sigmas(sigmas)
        self.z_dim, self.sigmas, self.weight, self.ae_steps = z_dim, tuple(sigmas), weight, ae_steps
        n = math.prod(self.shape)
        self.G = MLP(z_dim, hidden, (code_dim,), {})
        self.E = dense(n, (*ae_hidden, code_dim), dropout)
        self.A = dense(code_dim, (*ae_hidden[::-1], n), (0.0, 0.0))[:-1]  # without the last sigmoid: a picture's is applied in `shown`

    def players(self) -> dict[str, list[nn.Module]]:
        return {"A": [self.E, self.A], "G": [self.G]}

    def turns(self, batch: Batch, step: int) -> Iterator[Turn]:
        x = batch.x
        if step < self.ae_steps:
            yield {"A": {"reconstruction": squared_error(unit(self.shown(self.E(unit(x)))), unit(x))}}
        # Codes to be matched are those of whole pictures: no dropout, and nothing of the autoencoder moves.
        self.E.eval()
        with torch.no_grad():
            code = self.E(unit(x)).float()
        self.E.train(self.training)
        drawn = torch.sigmoid(self.G(self.prior(len(x), batch.c), batch.c).float())
        yield {"G": {"mmd": self.weight * root_mmd(code, drawn, self.sigmas)}}

    def shown(self, code: Tensor) -> Tensor:
        """Codes (b, code_dim) as samples."""
        x = self.A(code).float().unflatten(1, self.shape)
        return 2 * torch.sigmoid(x) - 1 if len(self.shape) == 3 else x

    def prior(self, n: int, c: Values) -> Tensor:
        return uniform_noise(self, n)

    def decode(self, z: Tensor, c: Values) -> Tensor:
        return self.shown(torch.sigmoid(self.G(z, c).float()))


def root_mmd(x: Tensor, y: Tensor, sigmas: tuple[float, ...]) -> Tensor:
    """sqrt(L^2) of two batches, the released code's loss: one number of all samples together, repeated for each, (b,)."""
    with torch.autocast(x.device.type, enabled=False):  # in half precision a squared distance of 100 is rounded by about a half
        return (mmd2(x.float().flatten(1), y.float().flatten(1), sigmas).clamp(min=0) + 1e-8).sqrt().expand(len(x))


def unit(x: Tensor) -> Tensor:
    """Pictures in [0, 1], rows (b, d); points as they are."""
    return ((x + 1) / 2).flatten(1) if x.dim() == 4 else x


def uniform_noise(model: GMMN | GMMNAE, n: int) -> Tensor:
    return (2 * model.noise.uniform(n, model.z_dim) - 1).to(model.device)


def dense(n: int, widths: tuple[int, ...], dropout: tuple[float, float]) -> nn.Sequential:
    """Dropout, dense layer, sigmoid, for each width."""
    layers: list[nn.Module] = []
    for i, width in enumerate(widths):
        layers += [nn.Dropout(dropout[i > 0]), nn.Linear(n, width), nn.Sigmoid()]
        n = width
    return nn.Sequential(*layers)


def check_sigmas(sigmas: tuple[float, ...]) -> None:
    if not sigmas or min(sigmas) <= 0:
        raise BadInput(f"sigmas is {sigmas}; expected positive widths of kernels")


_PIXELS = Run(
    model="gmmn.GMMN",
    data="mnist",
    optimizers={"*": Optimizer(lr=3e-3, betas=(0.9, 0.99), schedule="late")},
    batch=500,
    steps=10_000,
    half_life_images=100_000,
    precision="32",
    metrics=("parzen", "diversity_ratio", "frechet", "memorisation_ratio"),
    source="section 5; layers and kernels of the released code",
)
_CODES = {"*": Optimizer(lr=1e-3, betas=(0.9, 0.999), schedule="late")}

PRESETS = {
    "gmmn-mnist": _PIXELS,
    "gmmn-ae-mnist": replace(_PIXELS, model="gmmn.GMMNAE", optimizers=_CODES, steps=8000, source="section 4"),
}
