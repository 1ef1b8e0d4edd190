"""Conditional generative adversarial nets.

    min_G max_D  E_x[log D(x|c)] + E_z[log(1 - D(G(z|c)|c))]                       (2)

Mirza & Osindero 2014, arXiv 1411.1784. `nets="mirza"` are the paper's dense nets (section 4.1): G joins 200 units of z and
1000 of c into 1200; D joins maxout 240 x 5 of x and 50 x 5 of c in maxout 240 x 4. `nets="auto"` are convolutional for
pictures and dense for points. Where the paper is silent, its `pylearn2` ancestor is followed: dropout on the inputs of layers,
uniform initial weights of +-.05 in G and +-.005 in D, G's last bias at the pixel marginals.
"""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from condgen.conditions import Schema, Values
from condgen.data.store import Batch
from condgen.errors import BadInput, require_positive, require_range, unknown
from condgen.model import Optimizer, Run, Sampler, Shape, Turn
from condgen.models.gan import adversarial_turns, game_named, pair
from condgen.networks.embed import SchemaEmbedding
from condgen.networks.layers import Maxout

PRIORS = ("normal", "uniform")


class CGAN(Sampler):
    """G and D both read the conditions, joined to their input.

    Args:
        shape: of a sample; pictures in [-1, 1].
        schema: the conditions, at least one; any that `embed` knows.
        z_dim: dimension of the prior of z.
        width: channels at full size (doubled at each halving), or half the width of the dense layers.
        game: a key of `objectives.GAMES`; "minimax" is equation (2) to the letter.
        r1, r2, gp, lazy: gradient penalties, as in `gan.GAN`.
        nets: "auto", or "mirza" for the paper's dense nets.
        z_prior: "normal" for N(0, I), "uniform" for the unit hypercube (the paper).
    """

    def __init__(
        self,
        shape: Shape,
        schema: Schema,
        z_dim: int = 64,
        width: int = 32,
        game: str = "non_saturating",
        r1: float = 0.2,
        r2: float = 0.0,
        gp: float = 0.0,
        lazy: int = 1,
        nets: str = "auto",
        z_prior: str = "normal",
    ):
        super().__init__(shape, schema)
        require_positive(z_dim=z_dim, width=width, lazy=lazy)
        require_range(0, math.inf, r1=r1, r2=r2, gp=gp)
        if not schema:
            raise BadInput("cgan needs at least one condition; the data has none: use gan, or add labels")
        if nets not in ("auto", "mirza"):
            raise unknown("nets", nets, ["auto", "mirza"])
        if z_prior not in PRIORS:
            raise unknown("prior of z", z_prior, PRIORS)
        self.z_dim, self.game, self.z_prior = z_dim, game_named(game), z_prior
        self.penalties = {"r1": r1, "r2": r2, "gp": gp, "lazy": lazy}
        self.G: nn.Module
        self.D: nn.Module
        if nets == "mirza":
            self.G, self.D = MirzaGenerator(z_dim, schema, self.shape), MirzaDiscriminator(self.shape, schema)
        else:
            self.G, self.D = pair(self.shape, schema, z_dim, width)

    def start(self, batch: Batch) -> None:
        if isinstance(self.G, MirzaGenerator):
            self.G.begin_at(batch.x)

    def players(self) -> dict[str, list[nn.Module]]:
        return {"D": [self.D], "G": [self.G]}

    def turns(self, batch: Batch, step: int) -> Iterator[Turn]:
        yield from adversarial_turns(self, batch, step)  # (2) is (1) of gan.py with c given to both

    def prior(self, n: int, c: Values) -> Tensor:
        draw = self.noise.normal if self.z_prior == "normal" else self.noise.uniform
        return draw(n, self.z_dim).to(self.device)

    def decode(self, z: Tensor, c: Values) -> Tensor:
        return self.G(z, c).float()


class MirzaGenerator(nn.Module):
    """z (b, z_dim) -> 200, c -> 1000 a condition, both -> 1200 -> sample in [-1, 1]; rectifiers, and dropout before each joint layer."""

    def __init__(self, z_dim: int, schema: Schema, shape: Shape, dropout: float = 0.5):
        super().__init__()
        self.z = nn.Linear(z_dim, 200)
        self.c = SchemaEmbedding(schema, 1000)
        self.joint = nn.Linear(200 + self.c.out, 1200)
        self.x = nn.Linear(1200, math.prod(shape))
        self.dropout, self.shape = nn.Dropout(dropout), shape
        uniform_weights(self, 0.05)

    def forward(self, z: Tensor, c: Values) -> Tensor:
        h = self.dropout(torch.relu(self.c(c, self.z(z))))
        h = self.dropout(torch.relu(self.joint(h)))
        return (2 * torch.sigmoid(self.x(h)) - 1).unflatten(1, self.shape)

    @torch.no_grad()
    def begin_at(self, x: Tensor) -> None:
        """The first pictures have the marginal brightness of the data's."""
        self.x.bias.copy_(((x.mean(0).flatten() + 1) / 2).clamp(0.001, 0.999).logit())


class MirzaDiscriminator(nn.Module):
    """x -> maxout 240 of 5, c -> maxout 50 of 5 a condition, both -> maxout 240 of 4 -> logit (b, 1); x enters in [0, 1]."""

    def __init__(self, shape: Shape, schema: Schema):
        super().__init__()
        self.x = Maxout(math.prod(shape), 240, 5)
        self.c = SchemaEmbedding(schema, 50 * 5)
        self.joint = Maxout(240 + self.c.out // 5, 240, 4)
        self.last = nn.Linear(240, 1)
        self.see, self.dropout = nn.Dropout(0.2), nn.Dropout(0.5)
        uniform_weights(self, 0.005)

    def forward(self, x: Tensor, c: Values) -> Tensor:
        h_x = self.x(self.see((x.flatten(1) + 1) / 2))
        h_c = self.c(c, h_x[:, :0]).unflatten(1, (-1, 5)).amax(2)
        h = self.joint(self.dropout(torch.cat([h_x, h_c], 1)))
        return self.last(self.dropout(h)).float()


@torch.no_grad()
def uniform_weights(net: nn.Module, r: float) -> None:
    """Weights U(-r, r), biases 0."""
    for name, p in net.named_parameters():
        if name.endswith("bias"):
            p.zero_()
        else:
            p.uniform_(-r, r)


_ADAM = Optimizer(lr=1e-3, betas=(0.0, 0.99), schedule="late")

PRESETS = {
    "cgan-digits": Run(
        model="cgan.CGAN",
        data="digits",
        options={"z_dim": 32, "width": 32},
        optimizers={"*": _ADAM},
        steps=3000,
        half_life_images=5000,
        source="equation (2), convolutional nets on the embedded digits",
    ),
    "cgan-mnist": Run(
        model="cgan.CGAN",
        data="mnist",
        options={"r1": 1.0, "lazy": 4},
        optimizers={"*": Optimizer(lr=5e-4, betas=(0.0, 0.99), schedule="late")},
        steps=6000,
        half_life_images=20000,
        source="equation (2), convolutional nets",
        reported={"parzen": (132, 1.8)},
    ),
    "cgan-mnist-paper": Run(
        model="cgan.CGAN",
        data="mnist",
        split="train[:50000]",
        options={"z_dim": 100, "r1": 0.0, "nets": "mirza", "z_prior": "uniform"},
        optimizers={"*": Optimizer("SGD", lr=0.1, momentum=0.5, schedule="pylearn2")},
        batch=100,
        steps=50000,
        precision="32",
        save_every=2500,
        sample_every=2500,
        source="section 4.1",
        reported={"parzen": (132, 1.8)},
    ),
}
