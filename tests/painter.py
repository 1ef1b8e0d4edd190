"""Pictures whose every condition can be read off them, or cannot, by construction; and a painter that obeys, or has one fault.

16 x 16 px. The label is the direction of stripes two px wide: it is gone where the picture is halved. Of the attributes, `level` is
the brightness, `useless` is in no pixel and `constant` is always the same. Of the vector, the first two principal axes are slopes
to the right and downwards, the third is in no pixel.
"""

import torch
from torch import Generator, Tensor, nn

from condgen.conditions import Attributes, Label, Schema, Values, Vector
from condgen.data import Batch
from condgen.model import Run, Sampler

SHAPE, NOISE = (1, 16, 16), 0.3
SCHEMA: Schema = {
    "stripes": Label(("across", "down")),
    "traits": Attributes(("level", "useless", "constant")),
    "look": Vector(4),
}
RUN = Run(model="fake", data="painted")
TURN = torch.linalg.qr(torch.randn(4, 4, generator=Generator().manual_seed(7)))[0][:3]  # latent to look, rows orthonormal
SPREAD = torch.tensor([3.0, 1.5, 0.5])


def painted(c: Values, z: Tensor) -> Tensor:
    """Pictures (n, 1, 16, 16) of conditions and noise z (n, 256)."""
    across = torch.linspace(-1, 1, 16).expand(16, 16)
    stripes = torch.stack([torch.tensor([0.3, -0.3]).repeat(8)[:, None].expand(16, 16), torch.tensor([0.3, -0.3]).repeat(8).expand(16, 16)])
    slopes = (c["look"] - 5) @ TURN.T / SPREAD
    x = stripes[c["stripes"]] + (c["traits"][:, 0] - 0.5)[:, None, None]
    x = x + 0.3 * slopes[:, 0, None, None] * across + 0.3 * slopes[:, 1, None, None] * across.T
    return (x + NOISE * z.reshape(-1, 16, 16))[:, None]


class Painted:
    """A data set of n rows."""

    shape, schema = SHAPE, SCHEMA

    def __init__(self, n: int, seed: int):
        generator = Generator().manual_seed(seed)
        traits = torch.rand(n, 3, generator=generator)
        traits[:, 2] = 0.5
        look = 5 + (SPREAD * torch.randn(n, 3, generator=generator)) @ TURN
        self.c: Values = {"stripes": torch.arange(n) % 2, "traits": traits, "look": look}
        self.x, self.fingerprint = painted(self.c, torch.randn(n, 256, generator=generator)), f"painted-{n}-{seed}"

    def __len__(self) -> int:
        return len(self.x)

    def values(self, rows=None) -> Values:
        return {k: v if rows is None else v[rows] for k, v in self.c.items()}

    def batch(self, rows) -> Batch:
        return Batch(self.x[rows], self.values(rows))


TRAIN, TEST = Painted(400, 0), Painted(200, 1)


class Painter(Sampler):
    """Paints what is asked; or, by its fault, what another was asked for, one picture a class, or a training picture of the class."""

    def __init__(self, shape=SHAPE, schema=None, fault=""):
        super().__init__(shape, SCHEMA if schema is None else schema)
        self.fault, self.anchor = fault, nn.Parameter(torch.zeros(1))

    def turns(self, batch, step):
        yield {}

    def prior(self, n, c):
        return self.noise.normal(n, 256)

    def decode(self, z, c):
        if self.fault == "ignores":
            c = {k: v.roll(1, 0) for k, v in c.items()}
        if self.fault == "collapsed":
            return TRAIN.x[c["stripes"]]
        if self.fault == "copies":
            return TRAIN.x[2 * (z[:, 0].abs() * 1000).long().remainder(200) + c["stripes"]]
        return painted(c, z)
