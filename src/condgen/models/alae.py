"""Adversarial latent autoencoders.

    w = F(z),  x = G(w, noise);   an encoder E reads w back, and a critic D judges w: D(E(x)) is the discriminator
    update E, D:  softplus(D(E(G(F(z))))) + softplus(-D(E(x))) + gamma/2 |dD(E(x))/dx|^2                     (1)
    update F, G:  softplus(-D(E(G(F(z)))))                                                                   (2)
    update E, G:  the mean over dimensions of (F(z) - E(G(F(z))))^2                                            (3)

Pidhorskyi, Adjeroh & Doretto 2020, arXiv 2004.04467, algorithm 1. Reciprocity (3) is asked for in the space of w, never of pixels, and
w is forced to no prior: F learns it. F and G are what StyleGAN calls f and g. `ALAE` are the paper's dense nets, for which pixels have
no order; `StyleALAE` has StyleGAN's synthesis, and an encoder that reads the styles which the synthesis writes. The latent of both, for
every tool, is w. Conditions are read by F and D.

Left out of StyleALAE, as released: progressive growing, and a fixed pattern where noise is off.
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
from condgen.styled import Styled, bounded


class Reciprocal:
    """Algorithm 1 and what it makes possible, for a `Styled` that has F, G, E and D."""

    walk = "lerp"
    F: Any
    G: Any
    E: Any
    D: Any

    def play(self: Any, game: str, r1: float, lazy: int, reciprocity: float, reciprocity_moves_f: bool) -> None:
        """Called by the constructor, once the four nets are there. Raises BadInput for what is out of range."""
        require_range(0, math.inf, reciprocity=reciprocity, r1=r1)
        require_whole("lazy", lazy, 1)
        self.game, self.r1, self.lazy = game_named(game), r1, lazy
        self.reciprocity, self.reciprocity_moves_f = reciprocity, reciprocity_moves_f
        self.begin()

    def players(self: Any) -> dict[str, list[nn.Module]]:
        return {"E": [self.E], "D": [self.D], "F": [self.F], "G": [self.G]}

    def turns(self: Any, batch: Batch, step: int) -> Iterator[Turn]:
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

    def prior(self: Any, n: int, c: Values) -> Tensor:
        return self.truncate(self.mapping(self.z_prior(n), c), c, self.psi, self.psi_layers)

    def decode(self: Any, z: Tensor, c: Values) -> Tensor:
        """Samples of w (b, z_dim), or of one for each layer (b, layers, z_dim)."""
        return bounded(self.synthesis(z))

    def encode(self, x: Tensor, c: Values) -> Tensor:
        """w (b, z_dim)."""
        return self.E(x).float()

    def features(self, x: Tensor) -> Tensor:
        """The encoder's first hidden layer, (b, n): the "short" features of the paper's table 1."""
        return self.E.first(x).flatten(1).float()


class ALAE(Reciprocal, Styled):
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
        game: a key of `objectives.GAMES`; "non_saturating" is (1) and (2).
        r1: gamma; `lazy`: at every `lazy`-th step, as many times as strong.

    Raises:
        BadInput: for an option out of range.
    """

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
        game: str = "non_saturating",
        r1: float = 10.0,
        lazy: int = 1,
    ):
        super().__init__(shape, schema or {})
        require_positive(hidden=hidden, lr_mul=lr_mul)
        for name, value, least in (("z_dim", z_dim, 1), ("depth", depth, 0), ("critic_depth", critic_depth, 0)):
            require_whole(name, value, least)
        self.z_dim, self.mixing, self.cut_each = z_dim, 0.0, False
        self.F = Mapping(z_dim, self.schema, depth, lr_mul)
        self.G = DenseSynthesis(self.F.out, hidden[::-1], self.shape)
        self.E = DenseEncoder(math.prod(self.shape), hidden, self.F.out)
        self.D = LatentCritic(self.F.out, self.schema, critic_depth, lr_mul, linear_critic)
        self.play(game, r1, lazy, reciprocity, reciprocity_moves_f)


class StyleALAE(Reciprocal, Styled):
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
        super().__init__(shape, schema or {})
        require_positive(picture_gain=picture_gain, lr_mul=lr_mul)
        require_range(0, 1, mixing=mixing)
        counts = {"z_dim": z_dim, "width": width, "widest": widest}
        for name, value, least in (*((k, v, 1) for k, v in counts.items()), ("depth", depth, 0), ("critic_depth", critic_depth, 0)):
            require_whole(name, value, least)
        self.z_dim, self.mixing, self.cut_each = z_dim, mixing, cut_each
        self.F = Mapping(z_dim, self.schema, depth, lr_mul)
        self.G = Synthesis(self.shape, self.F.out, width, widest, noisy=pixel_noise, picture_gain=picture_gain)
        self.E = StyleEncoder(self.shape, self.F.out, width, widest)
        self.D = LatentCritic(self.F.out, self.schema, critic_depth, lr_mul, linear_critic)
        self.play(game, r1, lazy, reciprocity, reciprocity_moves_f)


class DenseSynthesis(nn.Module):
    """w (b, 1, w_dim) -> samples, linear: a synthesis of one layer, without noise."""

    layer_sides = ((1, 1),)
    noise_sides = ()

    def __init__(self, w_dim: int, hidden: tuple[int, ...], shape: Shape):
        super().__init__()
        self.layers = nn.ModuleList(EqualLinear(a, b) for a, b in pairwise([w_dim, *hidden]))
        self.last, self.shape = EqualLinear([w_dim, *hidden][-1], math.prod(shape), gain=1.0), shape

    def forward(self, w: Tensor, noise: Noises, stage: float | None = None) -> Tensor:
        h = w[:, 0]
        for layer in self.layers:
            h = leaky(layer(h))
        return self.last(h).unflatten(1, self.shape)


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
    options={},
    optimizers={"*": Optimizer(lr=2e-3, betas=(0.0, 0.99))},
    conditions=("none",),
    batch=128,
    steps=30_000,
    half_life_images=10_000,
    metrics=("one_nn", "linear_probe", "latent_cycle", "label_kept", "class_entropy", "frechet"),
    source="algorithm 1 on permutation-invariant MNIST, nets of 512 where the paper has 1024, 64 of its 600 epochs",
    reported={"one_nn": 0.9761},
)

PRESETS = {
    "alae-digits": replace(
        _MNIST,
        data="digits",
        options={"z_dim": 16, "hidden": (128, 128), "r1": 1.0},
        batch=64,
        steps=4000,
        metrics=(),
        source="algorithm 1 at the size of the embedded set",
        reported={},
    ),
    "alae-mnist": _MNIST,
    "alae-mnist-released": replace(
        _MNIST,
        options=_MNIST.options | {"linear_critic": True, "reciprocity_moves_f": True},
        source="the released code's differences: D is linear in w, and reciprocity moves F as well",
    ),
    "alae-mnist-paper": replace(
        _MNIST,
        options={"hidden": (1024, 1024)},
        steps=281_400,
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
