"""Adversarial feature learning: bidirectional GANs.

    V(D, E, G) = E_x[log D(x, E(x))] + E_z[log(1 - D(G(z), z))]                                              (3)

D maximises (3); E and G descend the *inverse* objective, both terms with their labels swapped, and all three move at once. Donahue,
Kraehenbuehl & Darrell 2016, arXiv 1605.09782. At the optimum E inverts G. The permutation-invariant nets of the released code read
flattened samples; z enters D (and again G) through linear maps of its own in the layer after the first. Bars on features stand beside an
untrained encoder: a random one already keeps neighbours.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condgen.conditions import Schema, Values
from condgen.data.store import Batch
from condgen.errors import BadInput, require_positive, require_range
from condgen.model import Optimizer, Run, Sampler, Shape, Turn
from condgen.models.gan import game_named
from condgen.networks.layers import SLOPE
from condgen.objectives.games import swapped
from condgen.objectives.penalties import squared_gradient
from condgen.objectives.reconstruction import bernoulli_nll


class BiGAN(Sampler):
    """Encoder, generator and a discriminator of pairs (x, z); none reads conditions. z ~ U(-1, 1).

    Args:
        shape: of a sample; pictures in [-1, 1].
        schema: ignored: the model draws from the whole of the data. Conditional inference is `ali`'s.
        z_dim: dimension of z.
        hidden: width of both hidden layers of all three nets.
        game: a key of `objectives.GAMES`, whose swapped form E and G descend; "minimax" is (3) to the letter.
        joint_batch: D sees both kinds of pairs in one batch; apart, as released, the statistics of its batch norm tell which is which.
        norm: batch norm in D, as released; without it D can have a penalty on its gradient.
        r1, r2: gamma of the penalty gamma/2 |dD/d(x, z)|^2 on the encoder's, on the generator's pairs; `lazy`: at every `lazy`-th step.
        dropout: on the input of D.
    """

    walk = "uniform"

    def __init__(
        self,
        shape: Shape,
        schema: Schema | None = None,
        z_dim: int = 50,
        hidden: int = 1024,
        game: str = "non_saturating",
        joint_batch: bool = True,
        norm: bool = True,
        r1: float = 0.0,
        r2: float = 0.0,
        lazy: int = 1,
        dropout: float = 0.0,
    ):
        super().__init__(shape, {})
        require_positive(z_dim=z_dim, hidden=hidden, lazy=lazy)
        require_range(0, math.inf, r1=r1, r2=r2)
        require_range(0, 1, dropout=dropout)
        if norm and (r1 or r2):
            raise BadInput("a gradient penalty is of single pairs, which batch norm mixes: leave out r1 and r2, or set norm to false")
        self.z_dim, self.game, self.joint_batch = z_dim, game_named(game), joint_batch
        self.r1, self.r2, self.lazy = r1, r2, lazy
        n = math.prod(self.shape)
        self.E, self.G, self.D = (
            Encoder(n, hidden, z_dim),
            Generator(z_dim, hidden, self.shape),
            PairCritic(n, z_dim, hidden, norm, dropout),
        )

    def players(self) -> dict[str, list[nn.Module]]:
        return {"D": [self.D], "G": [self.E, self.G]}

    def turns(self, batch: Batch, step: int) -> Iterator[Turn]:
        x, z = batch.x, self.prior(len(batch.x), {})
        code, fake = self.E(x), self.G(z)
        q, p = self.logits((x, code), (fake, z))
        terms = {"game": self.game.d(q, p)}
        if (self.r1 or self.r2) and step % self.lazy == 0:
            terms |= self.penalties((x, code), (fake, z))
        yield {"D": terms, "G": {"game": swapped(self.game, q, p)}}

    def logits(self, encoded: tuple[Tensor, Tensor], generated: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """D's logits (b,) on the encoder's and on the generator's pairs."""
        if not self.joint_batch:
            return self.D(*encoded), self.D(*generated)
        q, p = self.D(*(torch.cat(two) for two in zip(encoded, generated, strict=True))).chunk(2)
        return q, p

    def penalties(self, encoded: tuple[Tensor, Tensor], generated: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        found = {}
        for name, gamma, pair in (("r1", self.r1, encoded), ("r2", self.r2, generated)):
            if gamma:
                joint = torch.cat([part.detach().flatten(1) for part in pair], 1).requires_grad_()
                logit = self.D(joint[:, : -self.z_dim].unflatten(1, self.shape), joint[:, -self.z_dim :])
                found[name] = self.lazy * gamma / 2 * squared_gradient(logit, joint)
        return found

    def prior(self, n: int, c: Values) -> Tensor:
        return (2 * self.noise.uniform(n, self.z_dim) - 1).to(self.device)

    def decode(self, z: Tensor, c: Values) -> Tensor:
        return self.G(z).float()

    def encode(self, x: Tensor, c: Values) -> Tensor:
        return self.E(x).float()

    def features(self, x: Tensor) -> Tensor:
        """The encoder's second hidden layer, (b, hidden): "e-" in the released code."""
        return self.E.hidden(x)


class LatentRegressor(BiGAN):
    """The paper's baseline: D judges samples alone, and E regresses z from G(z), by the cross-entropy to z rescaled to [0, 1].

    Args:
        shape, schema, z_dim, hidden, game, norm, dropout: as in `BiGAN`, with the same nets.
        generator_weight: of the regression in G's loss as well; 0 is the latent regressor, above it is the joint one (0.25 in the paper).
    """

    def __init__(
        self,
        shape: Shape,
        schema: Schema | None = None,
        z_dim: int = 50,
        hidden: int = 1024,
        game: str = "non_saturating",
        norm: bool = True,
        dropout: float = 0.0,
        generator_weight: float = 0.0,
    ):
        super().__init__(shape, {}, z_dim, hidden, game, joint_batch=False, norm=norm, dropout=dropout)
        require_range(0, math.inf, generator_weight=generator_weight)
        self.generator_weight = generator_weight
        self.D = PairCritic(math.prod(self.shape), 0, hidden, norm, dropout)

    def players(self) -> dict[str, list[nn.Module]]:
        return {"D": [self.D], "G": [self.G], "E": [self.E]}

    def turns(self, batch: Batch, step: int) -> Iterator[Turn]:
        z = self.prior(len(batch.x), {})
        fake = self.G(z)
        none = z[:, :0]
        real_logit, fake_logit = self.D(batch.x, none), self.D(fake, none)
        missed = self.missed(fake, z)
        ours = {"game": self.game.g(fake_logit, real_logit if self.game.paired else None)}
        if self.generator_weight:
            ours["regression"] = self.generator_weight * missed
        yield {"D": {"game": self.game.d(real_logit, fake_logit)}, "G": ours, "E": {"regression": missed}}

    def missed(self, x: Tensor, z: Tensor) -> Tensor:
        """-log of z in [0, 1] as probabilities under E's logits, summed, (b,)."""
        return bernoulli_nll(self.E.last(self.E.hidden(x)), (z + 1) / 2)


class Norm(nn.BatchNorm1d):
    """Batch norm without gain and bias, as in the released code."""

    def __init__(self, width: int):
        super().__init__(width, affine=False)


class Encoder(nn.Module):
    """(b, ...) -> (b, z_dim) in (-1, 1)."""

    def __init__(self, n: int, hidden: int, z_dim: int):
        super().__init__()
        self.first, self.second, self.last = plain(n, hidden), plain(hidden, hidden), plain(hidden, z_dim)
        self.norm = Norm(hidden)

    def hidden(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.first(ink(x)), SLOPE)
        return F.leaky_relu(self.norm(self.second(h)), SLOPE)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.last(self.hidden(x)) / 2)  # 2 sigmoid(a) - 1


class Generator(nn.Module):
    """(b, z_dim) -> samples; z enters again in the second layer. Pictures end in (-1, 1), points have no bound."""

    def __init__(self, z_dim: int, hidden: int, shape: Shape):
        super().__init__()
        self.first, self.second, self.again = plain(z_dim, hidden), plain(hidden, hidden), plain(z_dim, hidden)
        self.norm1, self.norm2 = Norm(hidden), Norm(hidden)
        self.last, self.shape = plain(hidden, math.prod(shape)), shape

    def forward(self, z: Tensor) -> Tensor:
        h = torch.relu(self.norm1(self.first(z)))
        h = torch.relu(self.norm2(self.second(h) + self.again(z)))
        x = self.last(h).unflatten(1, self.shape)
        return torch.tanh(x / 2) if len(self.shape) == 3 else x


class PairCritic(nn.Module):
    """Is (x, z) the encoder's pair? With a z of no numbers: is x real? Logits (b,)."""

    def __init__(self, n: int, z_dim: int, hidden: int, norm: bool, dropout: float):
        super().__init__()
        self.first, self.second, self.last = plain(n, hidden), plain(hidden, hidden), plain(hidden, 1)
        self.code = plain(z_dim, hidden) if z_dim else None
        self.norm = Norm(hidden) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        h = F.leaky_relu(self.first(self.dropout(ink(x))), SLOPE)
        h = self.second(h) if self.code is None else self.second(h) + self.code(z)
        h = F.leaky_relu(self.norm(h), SLOPE)
        return self.last(h)[:, 0].float()


def ink(x: Tensor) -> Tensor:
    """Pictures flattened, in [0, 1] as in the released code: without biases, a black background is then nothing at all."""
    return (x.flatten(1) + 1) / 2 if x.dim() == 4 else x


def plain(n_in: int, n_out: int) -> nn.Linear:
    """A map without bias, weights N(0, 0.02^2)."""
    layer = nn.Linear(n_in, n_out, bias=False)
    nn.init.normal_(layer.weight, 0.0, 0.02)
    return layer


_SLOW = Optimizer(lr=2e-4, betas=(0.5, 0.999), schedule="late")
_MNIST = Run(
    model="bigan.BiGAN",
    data="mnist",
    options={"game": "relativistic", "norm": False, "r1": 3.0, "r2": 3.0, "lazy": 4},
    optimizers={"*": replace(_SLOW, lr=5e-4)},
    batch=128,
    steps=10_000,
    half_life_images=20_000,
    precision="32",
    metrics=("one_nn", "reconstruction_ratio", "label_kept", "linear_probe", "frechet"),
    source="section 4.2, 21 epochs; relativistic pairing, R1 and R2 in the place of D's batch norm",
    reported={"one_nn": 0.9739},
)
_RELEASED = replace(
    _MNIST,
    options={"joint_batch": False},
    optimizers={"*": replace(_SLOW, weight_decay=2.5e-5)},
    steps=12_000,
    source="section 4.2 and train_mnist.sh, 26 of its 400 epochs",
)
_REGRESSOR = replace(_MNIST, model="bigan.LatentRegressor", options={}, optimizers={"*": _SLOW}, steps=14_000)

PRESETS = {
    "bigan-digits": Run(
        model="bigan.BiGAN",
        data="digits",
        options={"z_dim": 16, "hidden": 256},
        optimizers={"*": _SLOW},
        precision="32",
        steps=6000,
        source="the released permutation-invariant nets, at the size of the embedded set",
    ),
    "bigan-mnist": _MNIST,
    "bigan-mnist-long": replace(_MNIST, steps=30_000, source="the same for 64 epochs: beside alae-mnist, at its budget of pictures"),
    "bigan-mnist-released": _RELEASED,
    "bigan-mnist-paper": replace(
        _RELEASED,
        steps=187_600,
        half_life_images=0.0,
        source="section 4.2 and train_mnist.sh: 200 epochs at a constant rate, 200 in which it falls (there exponentially, here linearly)",
    ),
    "bigan-mnist-regressor": replace(_REGRESSOR, source="section 4.1's latent regressor, 30 epochs", reported={"one_nn": 0.9744}),
    "bigan-mnist-joint-regressor": replace(
        _REGRESSOR,
        options={"generator_weight": 0.25},
        source="section 4.1's joint latent regressor, 30 epochs",
        reported={"one_nn": 0.9713},
    ),
}
