"""Adversarially learned inference.

    min_G max_D  E_q(x)[log D(x, z^)] + E_p(z)[log(1 - D(x~, z))],   z^ ~ q(z|x),   x~ = G_x(z)                  (1)

Encoder q(z|x) = N(mu(x), diag sigma(x)^2) and decoder are one player against a discriminator of pairs; they descend (1) with swapped
labels, V', and all move at once (algorithm 1). Dumoulin et al. 2016, arXiv 1606.00704. Conditions are read by all three nets (section 2.7).
Nothing in (1) asks that a reconstruction be faithful: `cycle` adds ALICE's term E|x - G_x(z^)|^2 (Li et al. 2017, arXiv 1709.01215).
R1 and R2 on the pair and relativistic pairing are later practice; on 25 modes they are what finds all of them.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from condgen.conditions import Schema, Values
from condgen.data.store import Batch
from condgen.errors import BadInput, require_positive, require_range, unknown
from condgen.model import Optimizer, Run, Sampler, Shape, Turn
from condgen.models.gan import game_named
from condgen.networks.inference import TABLES, Nets, inference_nets
from condgen.objectives.games import swapped
from condgen.objectives.penalties import squared_gradient
from condgen.objectives.reconstruction import squared_error


class ALI(Sampler):
    """Stochastic encoder, decoder, and a discriminator of pairs (x, z); with conditions all three read them.

    Args:
        shape: of a sample; pictures in [-1, 1].
        schema: the conditions; {} for none.
        z_dim: dimension of z ~ N(0, I).
        width: channels at full size of the house's nets, or half the width of dense ones.
        game: a key of `objectives.GAMES`, whose swapped form encoder and decoder descend; "minimax" is (1) to the letter.
        r1, r2: gamma of the penalty gamma/2 |dD/d(x, z)|^2 on the encoder's, on the decoder's pairs; 0 for none.
        lazy: penalties are computed at every `lazy`-th step, `lazy` times as strong.
        cycle: weight of ALICE's mean squared error of the reconstruction, a pixel; 0 is ALI.
        nets: "house" (convolutional for pictures, dense for points), or a layer table of the paper: "svhn", "cifar" for 32 px,
            "celeba" for 64 px.
        posterior: of the house's encoder: "gaussian", or "noise" that is joined to x, as in the paper's toy.
        maps: the table's channels are these times its own.
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
        lazy: int = 1,
        cycle: float = 0.0,
        nets: str = "house",
        posterior: str = "gaussian",
        maps: float = 1.0,
    ):
        super().__init__(shape, schema or {})
        require_positive(z_dim=z_dim, width=width, lazy=lazy, maps=maps)
        require_range(0, math.inf, r1=r1, r2=r2, cycle=cycle)
        if posterior not in ("gaussian", "noise"):
            raise unknown("posterior", posterior, ["gaussian", "noise"])
        if nets in TABLES and not TABLES[nets].maxout and (r1 or r2):
            raise BadInput(f"a gradient penalty is of single pairs, which the batch norm of nets {nets!r} mixes: leave out r1 and r2")
        self.z_dim, self.game, self.lazy, self.cycle = z_dim, game_named(game), lazy, cycle
        self.r1, self.r2, self.posterior_kind = r1, r2, posterior
        built: Nets = inference_nets(nets, self.shape, self.schema, z_dim, width, maps, self.noise_dim, self.judged)
        self.E, self.G, self.D = built

    @property
    def noise_dim(self) -> int:
        """Numbers of noise that are joined to x."""
        return self.z_dim if self.posterior_kind == "noise" else 0

    @property
    def judged(self) -> int:
        """Numbers that D gives a pair."""
        return 1

    @torch.no_grad()
    def start(self, batch: Batch) -> None:
        """A table's decoder begins with the log-odds of the mean picture."""
        if (bias := getattr(self.G, "bias", None)) is not None:
            p = ((batch.x.mean(0) + 1) / 2).clamp(1e-2, 1 - 1e-2)
            bias.copy_((p / (1 - p)).log())

    def players(self) -> dict[str, list[nn.Module]]:
        return {"D": [self.D], "G": [self.E, self.G]}

    @property
    def pair_critic(self) -> nn.Module:
        return self.D

    def turns(self, batch: Batch, step: int) -> Iterator[Turn]:
        x, c = batch.x, batch.c
        z = self.prior(len(x), c)
        code, fake = self.draw(x, c), self.G(z, c).float()
        q, p = self.pairs((x, code), (fake, z), c)
        real, fake_logit = self.realness(q), self.realness(p)
        terms = {"game": self.game.d(real, fake_logit)}
        if (self.r1 or self.r2) and step % self.lazy == 0:
            terms |= self.penalties((x, code), (fake, z), c)
        ours = {"game": swapped(self.game, real, fake_logit)}
        if self.cycle:
            ours["cycle"] = self.cycle / math.prod(self.shape) * squared_error(self.G(code, c).float(), x)
        yield {"D": terms, "G": ours}

    def pairs(self, encoded: tuple[Tensor, Tensor], generated: tuple[Tensor, Tensor], c: Values) -> tuple[Tensor, Tensor]:
        """D's answers (b, n) on both kinds of pairs, in one pass: batch norm must see them together."""
        both = {k: torch.cat([v, v]) for k, v in c.items()}
        q, p = self.pair_critic(torch.cat([encoded[0], generated[0]]), torch.cat([encoded[1], generated[1]]), both).chunk(2)
        return q, p

    def realness(self, answers: Tensor) -> Tensor:
        """The logit (b,) that a pair is the encoder's, from D's answers (b, judged)."""
        return answers[:, 0]

    def penalties(self, encoded: tuple[Tensor, Tensor], generated: tuple[Tensor, Tensor], c: Values) -> dict[str, Tensor]:
        found = {}
        for name, gamma, (x, z) in (("r1", self.r1, encoded), ("r2", self.r2, generated)):
            if gamma:
                joint = torch.cat([x.detach().flatten(1), z.detach()], 1).requires_grad_()
                logit = self.pair_critic(joint[:, : -self.z_dim].unflatten(1, self.shape), joint[:, -self.z_dim :], c)
                found[name] = self.lazy * gamma / 2 * squared_gradient(self.realness(logit), joint)
        return found

    def draw(self, x: Tensor, c: Values) -> Tensor:
        """z^ ~ q(z|x), (b, z_dim)."""
        noise = self.noise.normal(len(x), self.z_dim).to(x.device)
        if self.noise_dim:
            return self.E(torch.cat([x.flatten(1), noise], 1), c).float()
        mean, log_sigma = self.moments(x, c)
        return mean + log_sigma.exp() * noise

    def moments(self, x: Tensor, c: Values) -> tuple[Tensor, Tensor]:
        """mu and log sigma (b, z_dim); sigma within what neither vanishes nor explodes early."""
        mean, log_sigma = self.E(x, c).float().chunk(2, 1)
        return mean, log_sigma.clamp(-7, 3)

    def prior(self, n: int, c: Values) -> Tensor:
        return self.noise.normal(n, self.z_dim).to(self.device)

    def decode(self, z: Tensor, c: Values) -> Tensor:
        return self.G(z, c).float()

    def encode(self, x: Tensor, c: Values) -> Tensor:
        """mu(x); with noise joined to x, the code where that is zero."""
        return self.E(self._without_noise(x), c).float() if self.noise_dim else self.moments(x, c)[0]

    def _without_noise(self, x: Tensor) -> Tensor:
        """What the encoder reads: x, and zeros in the place of noise that is joined to it."""
        return torch.cat([x.flatten(1), x.new_zeros(len(x), self.noise_dim)], 1) if self.noise_dim else x

    def features(self, x: Tensor) -> Tensor:
        """The encoder's last three hidden layers and its output mu, (b, d): what the L2-SVM protocol reads.

        Raises:
            BadInput: where the encoder reads conditions: the features would hold the answer.
        """
        if self.schema:
            raise BadInput("the encoder reads conditions: features of a sample alone are those of a model without (--conditions none)")
        hidden = self.E.hidden(self._without_noise(x), {})[-3:]  # type: ignore[operator]
        return torch.cat([*(h.flatten(1).float() for h in hidden), self.encode(x, {})], 1)


_SMALL = Optimizer(lr=5e-4, betas=(0.0, 0.99), schedule="late")
_PAPER = Optimizer(lr=1e-4, betas=(0.5, 0.999))
_TOY = Run(
    model="ali.ALI",
    data="mixture2d",
    options={"z_dim": 2, "width": 64, "posterior": "noise"},
    optimizers={"*": Optimizer(lr=1e-3, betas=(0.5, 0.99), schedule="late")},
    conditions=("none",),
    batch=256,
    steps=30_000,
    half_life_images=100_000,
    precision="32",
    metrics=("modes", "high_quality", "same_mode_reconstruction"),
    source="section 4.4's toy with lighter nets: the paper's loss",
)
_MNIST = Run(
    model="ali.ALI",
    data="mnist",
    options={"z_dim": 64, "width": 16, "game": "relativistic", "r1": 1.0, "r2": 1.0, "lazy": 4},
    optimizers={"*": _SMALL},
    conditions=("none",),
    steps=7000,
    half_life_images=20_000,
    metrics=("one_nn", "reconstruction_ratio", "label_kept", "linear_probe", "svm_error", "frechet"),
    source="equation (1), the house's nets",
)

PRESETS = {
    "ali-mixture2d": _TOY,
    "ali-mixture2d-modern": replace(
        _TOY,
        options=_TOY.options | {"game": "relativistic", "r1": 0.02, "r2": 0.02},
        steps=40_000,
        source="the same with relativistic pairing, R1 and R2 (R3GAN)",
    ),
    "ali-digits": Run(
        model="ali.ALI",
        data="digits",
        options={"z_dim": 16, "width": 32, "r1": 0.2, "r2": 0.2},
        optimizers={"*": Optimizer(lr=1e-3, betas=(0.0, 0.99), schedule="late")},
        conditions=("none",),
        steps=4000,
        half_life_images=10_000,
        source="equation (1) at the size of the embedded set",
    ),
    "ali-mnist": _MNIST,
    "ali-mnist-alice": replace(_MNIST, options=_MNIST.options | {"cycle": 10.0}, steps=5000, source="the same with ALICE's cycle"),
    "ali-mnist-paper": replace(
        _MNIST,
        size=32,
        options={"z_dim": 64, "nets": "svhn", "maps": 0.25},
        optimizers={"*": _PAPER},
        batch=100,
        steps=60_000,
        half_life_images=0.0,
        source="table 3 and the released code, a quarter of its maps; 100 epochs",
    ),
    "ali-lfw64": Run(
        model="ali.ALI",
        data="lfw64",
        options={"z_dim": 128, "width": 16, "game": "relativistic", "r1": 2.0, "r2": 2.0, "lazy": 8, "cycle": 5.0},
        optimizers={"*": _SMALL},
        conditions=("none",),
        batch=32,
        steps=5000,
        half_life_images=20_000,
        metrics=("attribute_auc", "reconstruction", "reconstruction_ratio", "frechet"),
        source="equation (1) with ALICE's cycle on faces, the house's nets",
    ),
    "ali-lfw64-paper": Run(
        model="ali.ALI",
        data="lfw64",
        options={"z_dim": 256, "nets": "celeba"},
        optimizers={"*": _PAPER},
        conditions=("face",),
        batch=128,
        steps=11_300,
        source="the conditional CelebA experiment's nets and 123 epochs, on LFW",
    ),
}
