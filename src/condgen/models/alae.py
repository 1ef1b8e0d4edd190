"""Adversarial latent autoencoders.

    w = F(z),  x = G(w, noise);   an encoder E reads w back, and a critic D judges w: D(E(x)) is the discriminator
    update E, D:  softplus(D(E(G(F(z))))) + softplus(-D(E(x))) + gamma/2 |dD(E(x))/dx|^2                     (1)
    update F, G:  softplus(-D(E(G(F(z)))))                                                                   (2)
    update E, G:  |F(z) - E(G(F(z)))|^2                                                                      (3)

Pidhorskyi, Adjeroh & Doretto 2020, arXiv 2004.04467, algorithm 1. Reciprocity (3) is asked for in the space of w, never of pixels, and
w is forced to no prior: F learns it. F and G are what StyleGAN calls f and g. `ALAE` are the paper's dense nets, for which pixels have
no order; `StyleALAE` has StyleGAN's synthesis, and an encoder that reads the styles which the synthesis writes. The latent of both, for
every tool, is w. Conditions are read by F and D.

Left out of StyleALAE: progressive growing.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from condgen.conditions import Schema, Values
from condgen.data.store import Batch
from condgen.errors import require_positive, require_range, require_whole
from condgen.model import Optimizer, Run, Shape, Turn
from condgen.models.gan import game_named
from condgen.networks.embed import SchemaEmbedding
from condgen.networks.equalised import EqualLinear, leaky
from condgen.networks.reading import StyleEncoder
from condgen.networks.style import Mapping, Noises, Synthesis
from condgen.objectives.penalties import squared_gradient
from condgen.styled import Styled


class ALAE(Styled):
    """Mapping, generator, encoder and critic, dense: a sample's numbers may stand in any order.

    Args:
        shape: of a sample; pictures in [-1, 1].
        schema: conditions, any that `embed` knows; {} for none.
        z_dim: dimension of z ~ N(0, I) and of w.
        hidden: widths of the hidden layers of E, and backwards of G.
        depth: layers of F.
        lr_mul: what the learning rate of F and D is multiplied with.
        critic_depth: hidden layers of D.
        linear_critic: D without rectifiers, a linear function of w: the released code. The paper has an MLP.
        reciprocity_moves_f: (3) reaches F through G's input as well: the released code. The paper has E and G alone.
        reciprocity: weight of (3).
        bounded: pictures end in [-1, 1], by a hyperbolic tangent. The paper's have no bound; then R1 leaves a grain on a black background,
            which D must not see.
        game: a key of `objectives.GAMES`; "non_saturating" is (1) and (2).
        r1: gamma; `lazy`: at every `lazy`-th step, as many times as strong.

    Raises:
        BadInput: for an option out of range.
    """

    walk = "lerp"
    E: Any

    def __init__(
        self,
        shape: Shape,
        schema: Schema | None = None,
        z_dim: int = 50,
        hidden: tuple[int, ...] = (512, 512),
        depth: int = 6,
        lr_mul: float = 0.1,
        critic_depth: int = 2,
        linear_critic: bool = False,
        reciprocity_moves_f: bool = False,
        reciprocity: float = 1.0,
        bounded: bool = False,
        game: str = "non_saturating",
        r1: float = 10.0,
        lazy: int = 1,
    ):
        super().__init__(shape, schema or {})
        require_positive(hidden=hidden, **_checked(z_dim, depth, lr_mul, critic_depth, reciprocity, r1, lazy))
        self.z_dim, self.mixing, self.cut_each, n = z_dim, 0.0, False, math.prod(self.shape)
        self.game, self.r1, self.lazy = game_named(game), r1, lazy
        self.reciprocity, self.reciprocity_moves_f = reciprocity, reciprocity_moves_f
        self.F = Mapping(z_dim, self.schema, depth, lr_mul)
        self.G = DenseSynthesis(self.F.out, hidden[::-1], self.shape, bounded and len(self.shape) == 3)
        self.E = DenseEncoder(n, hidden, self.F.out)
        self.D = LatentCritic(self.F.out, self.schema, critic_depth, lr_mul, linear_critic)
        self.begin()

    def players(self) -> dict[str, list[nn.Module]]:
        return {"E": [self.E], "D": [self.D], "F": [self.F], "G": [self.G]}

    def turns(self, batch: Batch, step: int) -> Iterator[Turn]:
        x, c, n = batch.x, batch.c, len(batch.x)

        # (1)
        due = self.r1 > 0 and step % self.lazy == 0
        real_in = x.detach().requires_grad_(due)
        with torch.no_grad():
            fake = self.drawn(self.drawn_styles(n, c))
        real_logit = self.D(self.E(real_in), c)
        terms = {"game": self.game.d(real_logit, self.D(self.E(fake), c))}
        if due:
            terms["r1"] = self.lazy * self.r1 / 2 * squared_gradient(real_logit, real_in)
        yield {"E": terms, "D": terms}

        # (2)
        fake_logit = self.D(self.E(self.drawn(self.drawn_styles(n, c))), c)
        real = self.D(self.E(x), c) if self.game.paired else None
        terms = {"game": self.game.g(fake_logit, real)}
        yield {"F": terms, "G": terms}

        # (3), never of mixed styles
        with torch.set_grad_enabled(self.reciprocity_moves_f):
            w = self.mapping(self.z_prior(n), c)
        again = self.E(self.drawn(self.by_layer(w)))
        terms = {"reciprocity": self.reciprocity * (again - w.detach()).square().mean(1)}
        yield {"E": terms, "G": terms} | ({"F": terms} if self.reciprocity_moves_f else {})

    def prior(self, n: int, c: Values) -> Tensor:
        return self.truncate(self.mapping(self.z_prior(n), c), c, self.psi)

    def decode(self, z: Tensor, c: Values) -> Tensor:
        """Samples of w (b, z_dim), or of one for each layer (b, layers, z_dim)."""
        x = self.synthesis(z).float()
        return x.clamp(-1, 1) if len(self.shape) == 3 else x

    def encode(self, x: Tensor, c: Values) -> Tensor:
        """w (b, z_dim)."""
        return self.E(x).float()

    def features(self, x: Tensor) -> Tensor:
        """The encoder's first hidden layer, (b, n): the "short" features of the paper's table 1."""
        return self.E.first(x).flatten(1).float()


class StyleALAE(ALAE):
    """With StyleGAN's synthesis and an encoder that mirrors it.

    Args:
        shape: (c, h, w) of a picture, sides of at least 4 px.
        schema: conditions, any that `embed` knows; {} for none.
        z_dim: dimension of z ~ N(0, I) and of w.
        width, widest: channels at full size (doubled at each halving), and at most.
        depth: layers of F.
        lr_mul: what the learning rate of F and D is multiplied with.
        mixing: share of batches that mix two latents, in (1) and (2).
        cut_each: every sample of such a batch has its own crossover.
        pixel_noise: noise in every layer.
        picture_gain: of the last map, to colours; 0.03 as released.
        critic_depth, linear_critic, reciprocity_moves_f, reciprocity, game, r1, lazy: as in `ALAE`.

    Raises:
        BadInput: for samples that are no pictures, or an option out of range.
    """

    def __init__(
        self,
        shape: Shape,
        schema: Schema | None = None,
        z_dim: int = 128,
        width: int = 32,
        widest: int = 128,
        depth: int = 8,
        lr_mul: float = 0.1,
        mixing: float = 0.9,
        cut_each: bool = False,
        pixel_noise: bool = True,
        picture_gain: float = 0.03,
        critic_depth: int = 2,
        linear_critic: bool = False,
        reciprocity_moves_f: bool = False,
        reciprocity: float = 1.0,
        game: str = "non_saturating",
        r1: float = 10.0,
        lazy: int = 1,
    ):
        Styled.__init__(self, shape, schema or {})
        checked = _checked(z_dim, depth, lr_mul, critic_depth, reciprocity, r1, lazy)
        require_positive(width=width, widest=widest, picture_gain=picture_gain, **checked)
        require_range(0, 1, mixing=mixing)
        self.z_dim, self.mixing, self.cut_each = z_dim, mixing, cut_each
        self.game, self.r1, self.lazy = game_named(game), r1, lazy
        self.reciprocity, self.reciprocity_moves_f = reciprocity, reciprocity_moves_f
        self.F = Mapping(z_dim, self.schema, depth, lr_mul)
        self.G = Synthesis(self.shape, self.F.out, width, widest, noisy=pixel_noise, picture_gain=picture_gain)
        self.E = StyleEncoder(self.shape, self.F.out, width, widest)
        self.D = LatentCritic(self.F.out, self.schema, critic_depth, lr_mul, linear_critic)
        self.begin()


def _checked(z_dim: int, depth: int, lr_mul: float, critic_depth: int, reciprocity: float, r1: float, lazy: int) -> dict[str, float]:
    """What both kinds have, of which some must be above 0: those are returned. Raises BadInput for what is out of range."""
    require_whole("depth", depth, 0)
    require_whole("critic_depth", critic_depth, 0)
    require_range(0, math.inf, reciprocity=reciprocity, r1=r1)
    return {"z_dim": z_dim, "lr_mul": lr_mul, "lazy": lazy}


class DenseSynthesis(nn.Module):
    """w (b, 1, w_dim) -> samples, linear unless `bounded`: a synthesis of one layer, without noise."""

    layer_sides = ((1, 1),)
    noise_sides = ()

    def __init__(self, w_dim: int, hidden: tuple[int, ...], shape: Shape, bounded: bool):
        super().__init__()
        self.bounded = bounded
        self.layers = nn.ModuleList(EqualLinear(a, b) for a, b in pairwise([w_dim, *hidden]))
        self.last, self.shape = EqualLinear([w_dim, *hidden][-1], math.prod(shape), gain=1.0), shape

    def forward(self, w: Tensor, noise: Noises, stage: float | None = None) -> Tensor:
        h = w[:, 0]
        for layer in self.layers:
            h = leaky(layer(h))
        x = self.last(h).unflatten(1, self.shape)
        return torch.tanh(x) if self.bounded else x


class DenseEncoder(nn.Module):
    """Samples (b, ...) -> w (b, w_dim); a leaky rectifier behind the last layer too, as behind F's."""

    def __init__(self, n: int, hidden: tuple[int, ...], w_dim: int):
        super().__init__()
        self.layers = nn.ModuleList(EqualLinear(a, b) for a, b in pairwise([n, *hidden, w_dim]))

    def first(self, x: Tensor) -> Tensor:
        return leaky(self.layers[0](x.flatten(1)))

    def forward(self, x: Tensor) -> Tensor:
        h = x.flatten(1)
        for layer in self.layers:
            h = leaky(layer(h))
        return h.float()


class LatentCritic(nn.Module):
    """w and conditions -> logits (b,)."""

    def __init__(self, w_dim: int, schema: Schema, depth: int, lr_mul: float, linear: bool, embed_dim: int = 64):
        super().__init__()
        self.embed, self.linear = SchemaEmbedding(schema, embed_dim), linear
        widths = [w_dim + self.embed.out, *[w_dim] * depth]
        self.layers = nn.ModuleList(EqualLinear(a, b, lr_mul=lr_mul) for a, b in pairwise(widths))
        self.last = EqualLinear(widths[-1], 1, 1.0, lr_mul)

    def forward(self, w: Tensor, c: Values) -> Tensor:
        h = self.embed(c, w)
        for layer in self.layers:
            h = layer(h) if self.linear else leaky(layer(h))
        return self.last(h)[:, 0].float()


_MNIST = Run(
    model="alae.ALAE",
    data="mnist",
    options={"bounded": True, "lazy": 4},
    optimizers={"*": Optimizer(lr=2e-3, betas=(0.0, 0.99), schedule="late")},
    conditions=("none",),
    batch=128,
    steps=30_000,
    half_life_images=50_000,
    metrics=("one_nn", "linear_probe", "latent_cycle", "label_kept", "class_entropy", "frechet"),
    source="algorithm 1 on permutation-invariant MNIST, nets of 512 where the paper has 1024, bounded, 64 of its 600 epochs",
    reported={"one_nn": 0.9761},
)

PRESETS = {
    "alae-digits": replace(
        _MNIST,
        data="digits",
        options={"z_dim": 16, "hidden": (128, 128), "bounded": True, "r1": 1.0},
        batch=64,
        steps=4000,
        metrics=(),
        source="algorithm 1 at the size of the embedded set",
        reported={},
    ),
    "alae-mnist": _MNIST,
    "alae-mnist-released": replace(
        _MNIST,
        options={"linear_critic": True, "reciprocity_moves_f": True},
        source="the released code's differences: no bound, D is linear in w, and reciprocity moves F as well",
    ),
    "alae-mnist-paper": replace(
        _MNIST,
        options={"hidden": (1024, 1024)},
        optimizers={"*": Optimizer(lr=2e-3, betas=(0.0, 0.99))},
        steps=281_400,
        half_life_images=10_000,
        source="configs/mnist_fc.yaml: 600 epochs of nets of 1024",
    ),
    "stylealae-lfw32": Run(
        model="alae.StyleALAE",
        data="lfw64-landmarks",
        size=32,
        options={"r1": 0.5, "lazy": 8},
        optimizers={"*": Optimizer(lr=2.5e-3, betas=(0.0, 0.99), schedule="late")},
        conditions=("none",),
        batch=16,
        steps=7000,
        half_life_images=10_000,
        metrics=("frechet", "reconstruction_frechet", "latent_cycle", "path_length_z", "path_length_w"),
        source="section 4.2 at 32 px",
    ),
}
