"""Generative adversarial nets.

    min_G max_D  E_x[log D(x)] + E_z[log(1 - D(G(z)))]                             (1)

Goodfellow et al. 2014, arXiv 1406.2661. One step of D, one of G, as Algorithm 1 with k = 1. Every game of
`objectives.GAMES` can be played; R1 (arXiv 1801.04406) and the moving average are later practice, both off by option.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

from torch import Tensor, nn

from condgen.conditions import Schema, Values
from condgen.data.store import Batch
from condgen.errors import require_positive, require_range, unknown
from condgen.model import Optimizer, Run, Sampler, Shape, Turn
from condgen.networks.conv import ConvEncoder, ConvGenerator
from condgen.networks.mlp import MLP
from condgen.objectives.games import GAMES
from condgen.objectives.penalties import between, squared_gradient, unit_gradient


class GAN(Sampler):
    """Generator and discriminator; neither reads conditions.

    Convolutional for pictures, dense for points.

    Args:
        shape: of a sample; pictures in [-1, 1].
        schema: ignored: the model draws from the whole of the data. `cgan` reads conditions.
        z_dim: dimension of the prior z ~ N(0, I).
        width: channels at full size (doubled at each halving), or half the width of the dense layers.
        game: a key of `objectives.GAMES`; "minimax" is equation (1) to the letter.
        r1, r2: gamma of the penalty gamma/2 |dD/dx|^2 on real, on fake samples; 0 for none.
        gp: weight of WGAN-GP's penalty, 10 in that paper; 0 for none.
        lazy: penalties are computed at every `lazy`-th step, `lazy` times as strong.
    """

    def __init__(
        self,
        shape: Shape,
        schema: Schema | None = None,
        z_dim: int = 64,
        width: int = 32,
        game: str = "non_saturating",
        r1: float = 0.0,
        r2: float = 0.0,
        gp: float = 0.0,
        lazy: int = 1,
    ):
        super().__init__(shape, {})
        require_positive(z_dim=z_dim, width=width, lazy=lazy)
        require_range(0, math.inf, r1=r1, r2=r2, gp=gp)
        self.z_dim, self.game = z_dim, game_named(game)
        self.penalties = {"r1": r1, "r2": r2, "gp": gp, "lazy": lazy}
        self.G, self.D = pair(self.shape, {}, z_dim, width)

    def players(self) -> dict[str, list[nn.Module]]:
        return {"D": [self.D], "G": [self.G]}

    def turns(self, batch: Batch, step: int) -> Iterator[Turn]:
        yield from adversarial_turns(self, batch, step)

    def prior(self, n: int, c: Values) -> Tensor:
        return self.noise.normal(n, self.z_dim).to(self.device)

    def decode(self, z: Tensor, c: Values) -> Tensor:
        return self.G(z, c).float()


def adversarial_turns(model: Any, batch: Batch, step: int) -> Iterator[Turn]:
    """Algorithm 1: D's turn, then G's; the same fakes serve both. `model` has G, D, prior, game, penalties."""
    x, c = batch.x, batch.c
    fake = model.G(model.prior(len(x), c), c)

    # (1), max over D: tell real from fake
    terms, real_in, fake_in = {}, x, fake.detach()
    if due := step % model.penalties["lazy"] == 0:
        real_in, fake_in = x.detach().requires_grad_(), fake.detach().requires_grad_()
    real_logit, fake_logit = model.D(real_in, c)[:, 0], model.D(fake_in, c)[:, 0]
    terms["game"] = model.game.d(real_logit, fake_logit)
    if due:
        terms |= penalties(model, real_in, fake_in, real_logit, fake_logit, lambda line: model.D(line, c)[:, 0])
    yield {"D": terms}

    # (1), min over G: pass for real
    real = model.D(x, c)[:, 0] if model.game.paired else None
    yield {"G": {"game": model.game.g(model.D(fake, c)[:, 0], real)}}


def penalties(
    model: Any, x: Tensor, fake: Tensor, real_logit: Tensor, fake_logit: Tensor, judge: Callable[[Tensor], Tensor]
) -> dict[str, Tensor]:
    """D's gradient penalties on this batch, each `lazy` times as strong as its weight; `judge` gives D's logits (b,) on other samples."""
    terms, weight = {}, model.penalties
    if weight["r1"]:
        terms["r1"] = weight["lazy"] * weight["r1"] / 2 * squared_gradient(real_logit, x)
    if weight["r2"]:
        terms["r2"] = weight["lazy"] * weight["r2"] / 2 * squared_gradient(fake_logit, fake)
    if weight["gp"]:
        line = between(x, fake, model.noise.uniform(len(x)).to(x.device))
        terms["gp"] = weight["lazy"] * weight["gp"] * unit_gradient(judge(line), line)
    return terms


def game_named(name: str) -> Any:
    if name not in GAMES:
        raise unknown("game", name, GAMES)
    return GAMES[name]


def pair(shape: Shape, schema: Schema, z_dim: int, width: int) -> tuple[nn.Module, nn.Module]:
    """A generator and a discriminator for this shape: convolutional for pictures, dense for points."""
    if len(shape) == 3:
        return ConvGenerator(z_dim, schema, shape, width), ConvEncoder(shape, schema, 1, width)
    hidden = (2 * width,) * 3
    return MLP(z_dim, hidden, shape, schema, activation="leaky"), MLP(math.prod(shape), hidden, (1,), schema, activation="leaky")


_ADAM = Optimizer(lr=1e-3, betas=(0.0, 0.99), schedule="late")

PRESETS = {
    "gan-digits": Run(
        model="gan.GAN",
        data="digits",
        options={"z_dim": 32, "width": 32, "r1": 0.2},
        optimizers={"*": _ADAM},
        steps=3000,
        half_life_images=5000,
        source="Algorithm 1, convolutional",
    ),
    "gan-mnist": Run(
        model="gan.GAN",
        data="mnist",
        options={"r1": 1.0, "lazy": 4},
        optimizers={"*": Optimizer(lr=5e-4, betas=(0.0, 0.99), schedule="late")},
        steps=6000,
        half_life_images=20000,
        source="Algorithm 1, convolutional nets",
        reported={"parzen": (225, 2)},
    ),
    "gan-lfw32": Run(
        model="gan.GAN",
        data="lfw64-landmarks",
        size=32,
        options={"z_dim": 128, "width": 16, "r1": 0.5, "lazy": 8},
        optimizers={"*": Optimizer(lr=5e-4, betas=(0.0, 0.99), schedule="late")},
        conditions=("none",),
        batch=16,
        steps=15_000,
        half_life_images=10_000,
        metrics=("frechet",),
        source="Algorithm 1, convolutional nets: beside stylegan-lfw32, at its budget of pictures",
    ),
    "gan-mixture2d": Run(
        model="gan.GAN",
        data="mixture2d",
        options={"z_dim": 8, "width": 64, "game": "relativistic", "r1": 0.02, "r2": 0.02},
        optimizers={"*": _ADAM},
        batch=256,
        steps=6000,
        half_life_images=50000,
        precision="32",
        metrics=("modes", "high_quality"),
        source="Algorithm 1; relativistic pairing with R1 and R2 (R3GAN)",
    ),
    "gan-mixture2d-plain": Run(
        model="gan.GAN",
        data="mixture2d",
        options={"z_dim": 2, "width": 64},
        optimizers={"*": Optimizer(lr=1e-3, betas=(0.5, 0.99), schedule="late")},
        batch=256,
        steps=30_000,
        half_life_images=100_000,
        precision="32",
        metrics=("modes", "high_quality"),
        source="Algorithm 1, without any penalty: what ALI is shown beside (Dumoulin et al. 2016, section 4.4)",
    ),
}
