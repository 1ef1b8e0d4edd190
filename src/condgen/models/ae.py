"""Autoencoder: the baseline that reconstructs and does not generate.

    min E |x - Dec(Enc(x))|^2

With no hidden layer both maps are affine, and the optimum is the projection on the first principal components
(Baldi & Hornik 1989): an exact check. Layers 784-512-256-32 as in lecture 002.
"""

import math
from collections.abc import Iterator

from torch import Tensor

from condgen.conditions import Values
from condgen.data.store import Batch
from condgen.errors import require_positive, unknown
from condgen.model import Model, Optimizer, Run, Shape, Turn
from condgen.networks.mlp import MLP
from condgen.objectives.reconstruction import absolute_error, squared_error

ERRORS = {"squared": squared_error, "absolute": absolute_error}


class AE(Model):
    """Encoder and decoder of dense layers; it reads no conditions.

    Args:
        shape: of a sample.
        schema: ignored: there is nothing to ask of a reconstruction.
        z_dim: dimension of the code.
        hidden: widths of the encoder's hidden layers, the decoder's in reverse; () for a linear autoencoder.
        error: "squared" or "absolute", summed over the sample.
    """

    walk = "lerp"

    def __init__(self, shape: Shape, schema: object = None, z_dim: int = 32, hidden: tuple[int, ...] = (512, 256), error: str = "squared"):
        super().__init__(shape, {})
        require_positive(z_dim=z_dim, hidden=hidden)
        if error not in ERRORS:
            raise unknown("error", error, ERRORS)
        self.z_dim, self.error = z_dim, ERRORS[error]
        self.E = MLP(math.prod(shape), hidden, (z_dim,), {})
        self.G = MLP(z_dim, hidden[::-1], self.shape, {})

    def turns(self, batch: Batch, step: int) -> Iterator[Turn]:
        yield {"model": {"reconstruction": self.error(self.decode(self.encode(batch.x, {}), {}), batch.x)}}

    def encode(self, x: Tensor, c: Values) -> Tensor:
        return self.E(x, {})

    def decode(self, z: Tensor, c: Values) -> Tensor:
        return self.G(z, {})


_ADAM = Optimizer(lr=1e-3, betas=(0.9, 0.999), schedule="cosine")

PRESETS = {
    "ae-digits": Run(
        model="ae.AE",
        data="digits",
        options={"z_dim": 16, "hidden": (128,)},
        optimizers={"*": _ADAM},
        precision="32",
        steps=1500,
        source="lecture 002, at the size of the embedded set",
    ),
    "ae-mnist": Run(
        model="ae.AE", data="mnist", optimizers={"*": _ADAM}, batch=128, steps=12000, precision="32", source="lecture 002: 784-512-256-32"
    ),
    "ae-mnist-linear": Run(
        model="ae.AE",
        data="mnist",
        options={"z_dim": 32, "hidden": ()},
        optimizers={"*": Optimizer(lr=3e-3, betas=(0.9, 0.999), schedule="cosine")},
        batch=128,
        steps=12000,
        precision="32",
        source="Baldi & Hornik 1989: the optimum is PCA",
    ),
    "ae-mnist-bigan": Run(
        model="ae.AE",
        data="mnist",
        options={"z_dim": 50, "hidden": (1024, 1024)},
        optimizers={"*": _ADAM},
        batch=128,
        steps=12000,
        precision="32",
        metrics=("one_nn", "reconstruction_ratio", "label_kept", "linear_probe", "reconstruction"),
        source="Donahue et al. 2016, section 4.2: the l2 autoencoder of BiGAN's size",
        reported={"one_nn": 0.9758},
    ),
    "ae-mnist-bigan-l1": Run(
        model="ae.AE",
        data="mnist",
        options={"z_dim": 50, "hidden": (1024, 1024), "error": "absolute"},
        optimizers={"*": _ADAM},
        batch=128,
        steps=12000,
        precision="32",
        metrics=("one_nn", "reconstruction_ratio", "label_kept", "linear_probe", "reconstruction"),
        source="the same with the l1 error",
        reported={"one_nn": 0.9763},
    ),
}
