"""Style-based generative adversarial nets.

    w = f(z),   x = g(w, noise): every layer's channels are normalised and restyled by A(w), after noise is added to them
    L_G = softplus(-D(g(f(z)))),   L_D = softplus(D(g(f(z)))) + softplus(-D(x)) + gamma/2 |dD/dx|^2

Karras, Laine & Aila 2019, arXiv 1812.04948. In a share `mixing` of the batches two latents make a picture, one before a random layer and
one from there on, so that neighbouring styles are not taken to belong together. w can be drawn to its mean (`psi`), which trades
variety for quality. The configurations A to F of its table 1 are options. Of StyleGAN2 (arXiv 1912.04958): demodulation, lazy R1, the
path-length penalty; of arXiv 2006.06676: adaptive augmentation. Conditions are read by the mapping and by D.

Left out: the optimisers' states are not reset where a resolution is added, and the batch does not shrink there. Of several processes each
has its own running means and its own augmentation, from its share of the batch.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condgen.conditions import Schema, Values
from condgen.data.store import Batch
from condgen.errors import BadInput, require_positive, require_range, require_whole, unknown
from condgen.model import Optimizer, Run, Shape, Turn
from condgen.models.gan import game_named, penalties
from condgen.networks.augment import DRAWS, Augment
from condgen.networks.reading import StyleCritic
from condgen.networks.style import Mapping, Synthesis
from condgen.objectives.penalties import path_lengths
from condgen.styled import Styled, bounded

STYLES = ("adain", "demodulated", "plain")


class StyleGAN(Styled):
    """Mapping, synthesis and discriminator.

    Args:
        shape: (c, h, w) of a picture, sides of at least 4 px.
        schema: conditions, any that `embed` knows; {} for none.
        z_dim: dimension of z ~ N(0, I) and of w.
        width, widest: channels at full size (doubled at each halving), and at most.
        depth: layers of the mapping; 0 for none.
        lr_mul: what the mapping's learning rate is multiplied with.
        style: "adain"; "demodulated" for StyleGAN2's convolutions; "plain" for none at all, configurations A and B.
        constant: the synthesis starts from a learned constant (configuration D), not from w.
        pixel_noise: noise in every layer (E).
        mixing: share of batches that mix two latents (F).
        cut_each: every sample of such a batch has its own crossover, not one for all of them (the paper).
        blur: what is doubled or halved is low-passed (B).
        game: a key of `objectives.GAMES`.
        r1, r2, gp, lazy: gradient penalties, as in `gan.GAN`.
        drift: weight of D(x)^2, .001 with WGAN-GP.
        path_length: weight of StyleGAN2's penalty, at every `path_lazy`-th step and as many times as strong; 2 there.
        ada: the share of D(x) > 0, minus that of D(x) < 0, that augmentation holds; 0.6 in the paper, 0 for no augmentation.
        mirror: training pictures are mirrored at random.
        group: samples in a group of the minibatch deviation; 1 for none.
        grow_steps: steps for which a resolution is trained, and for which the next is faded in; 0 for all of them at once.

    Raises:
        BadInput: for samples that are no pictures, or an option out of range.
    """

    unaveraged = ("stage", "path_mean", "augment")
    stage: Tensor
    path_mean: Tensor

    def __init__(
        self,
        shape: Shape,
        schema: Schema | None = None,
        z_dim: int = 128,
        width: int = 32,
        widest: int = 128,
        depth: int = 8,
        lr_mul: float = 0.01,
        style: str = "adain",
        constant: bool = True,
        pixel_noise: bool = True,
        mixing: float = 0.9,
        cut_each: bool = False,
        blur: bool = True,
        game: str = "non_saturating",
        r1: float = 1.0,
        r2: float = 0.0,
        gp: float = 0.0,
        lazy: int = 1,
        drift: float = 0.0,
        path_length: float = 0.0,
        path_lazy: int = 4,
        ada: float = 0.0,
        mirror: bool = False,
        group: int = 4,
        grow_steps: int = 0,
    ):
        super().__init__(shape, schema or {})
        require_positive(lr_mul=lr_mul)
        require_range(0, 1, mixing=mixing, ada=ada)
        require_range(0, math.inf, r1=r1, r2=r2, gp=gp, drift=drift, path_length=path_length)
        for name, value in {"z_dim": z_dim, "width": width, "widest": widest, "lazy": lazy, "path_lazy": path_lazy, "group": group}.items():
            require_whole(name, value, 1)
        for name, value in {"depth": depth, "grow_steps": grow_steps}.items():
            require_whole(name, value, 0)
        if style not in STYLES:
            raise unknown("style", style, STYLES)
        if style == "plain" and (constant or mixing):
            raise BadInput("style 'plain' reads w at its input alone: set constant to false and mixing to 0")
        self.z_dim, self.game, self.mixing, self.cut_each = z_dim, game_named(game), mixing, cut_each
        self.penalties = {"r1": r1, "r2": r2, "gp": gp, "lazy": lazy}
        self.drift, self.path_length, self.path_lazy = drift, path_length, path_lazy
        self.mirror, self.grow_steps, growing = mirror, grow_steps, grow_steps > 0
        self.F = Mapping(z_dim, self.schema, depth, lr_mul)
        self.G = Synthesis(self.shape, self.F.out, width, widest, constant, pixel_noise, blur, style, growing)
        self.D = StyleCritic(self.shape, self.schema, width, widest, blur, group, growing)
        self.augment: Augment | None = Augment(ada) if ada else None
        self.register_buffer("stage", torch.tensor(float(len(self.G.sides) - 1)))
        self.register_buffer("path_mean", torch.zeros(()))
        self.begin()

    def players(self) -> dict[str, list[nn.Module]]:
        return {"D": [self.D], "G": [self.F, self.G]}

    # --- training ---

    def turns(self, batch: Batch, step: int) -> Iterator[Turn]:
        stage = self.grow(step)
        x, c = self.at_stage(self.mirrored(batch.x), stage), batch.c
        w = self.drawn_styles(len(x), c, stage)
        fake = self.drawn(w, stage)

        # max over D: tell real from fake
        real_in, fake_in = self.augmented(x), self.augmented(fake.detach())
        if due := step % self.penalties["lazy"] == 0:
            real_in, fake_in = real_in.detach().requires_grad_(), fake_in.detach().requires_grad_()
        real_logit, fake_logit = self.D(real_in, c, stage)[:, 0], self.D(fake_in, c, stage)[:, 0]
        terms = {"game": self.game.d(real_logit, fake_logit)}
        if self.drift:
            terms["drift"] = self.drift * real_logit.square()
        if due:
            terms |= penalties(self, real_in, fake_in, real_logit, fake_logit, lambda line: self.D(line, c, stage)[:, 0])
        if self.augment is not None:
            self.augment.adapt(real_logit)
        yield {"D": terms}

        # min over F and G: pass for real
        real = self.D(self.augmented(x), c, stage)[:, 0] if self.game.paired else None
        terms = {"game": self.game.g(self.D(self.augmented(fake), c, stage)[:, 0], real)}
        if self.path_length and step % self.path_lazy == 0:
            terms["path_length"] = self.path_lazy * self.path_length * self.uneven_paths(len(x), c, stage)
        yield {"G": terms}

    def uneven_paths(self, n: int, c: Values, stage: float | None) -> Tensor:
        """(|J^T y| - a)^2 for pictures of new latents, (b,): arXiv 1912.04958, equation (4), with a the running mean of the lengths."""
        w = self.drawn_styles(n, c, stage)
        x = self.drawn(w, stage)
        lengths = path_lengths(x, w, self.noise.normal(*x.shape).to(x.device))
        self.path_mean.lerp_(lengths.detach().mean(), 0.01)
        return (lengths - self.path_mean).square()

    def mirrored(self, x: Tensor) -> Tensor:
        """Each picture as it is, or mirrored."""
        if not self.mirror:
            return x
        return torch.where((self.noise.uniform(len(x)) < 0.5).to(x.device)[:, None, None, None], x.flip(3), x)

    def augmented(self, x: Tensor) -> Tensor:
        if self.augment is None:
            return x
        return self.augment(x, *(draw(len(x), DRAWS).to(x.device) for draw in (self.noise.uniform, self.noise.normal)))

    # --- growing ---

    def grow(self, step: int) -> float | None:
        """The stage of this step: None for the last, else how many times the sides of the first are doubled."""
        last = len(self.G.sides) - 1
        if not self.grow_steps or last < 1:
            return None
        phase, within = divmod(step, self.grow_steps)
        grown = 1 + phase // 2 + (within / self.grow_steps if phase % 2 else 0.0)  # begins at the second: 8 px of 4
        self.stage.fill_(min(grown, last))
        return None if grown >= last else grown

    def at_stage(self, x: Tensor, stage: float | None) -> Tensor:
        """Pictures at the size and, between two stages, with the detail that the generator's have."""
        if stage is None:
            return x
        upper = math.ceil(stage)
        x = F.avg_pool2d(x, 2 ** (len(self.G.sides) - 1 - upper))
        if upper == stage:
            return x
        return torch.lerp(F.interpolate(F.avg_pool2d(x, 2), scale_factor=2.0), x, stage - (upper - 1))

    # --- drawing ---

    @property
    def shown(self) -> float | None:
        """While it grows, what was trained so far."""
        stage = float(self.stage)
        return stage if self.grow_steps and stage < len(self.G.sides) - 1 else None

    def prior(self, n: int, c: Values) -> Tensor:
        return self.z_prior(n)

    def decode(self, z: Tensor, c: Values) -> Tensor:
        return bounded(self.synthesis(self.truncate(self.mapping(z, c), c, self.psi, self.psi_layers)))


_ADAM = Optimizer(lr=2.5e-3, betas=(0.0, 0.99), schedule="late")
_FACES = Run(
    model="stylegan.StyleGAN",
    data="lfw64-landmarks",
    size=32,
    options={"r1": 0.5, "lazy": 8, "mirror": True},
    optimizers={"*": _ADAM},
    conditions=("none",),
    batch=16,
    steps=15_000,
    half_life_images=10_000,
    metrics=(
        "frechet",
        "path_length_z",
        "path_length_w",
        "separability_z",
        "separability_w",
        "mixing_damage",
        "style_factors",
        "noise_effect",
    ),
    source="configuration F of table 1, at 32 px",
    reported={"path_length_z": 664.9, "path_length_w": 233.3, "separability_z": 165.0, "separability_w": 3.745},
)
_PROGRESSIVE = {"style": "plain", "depth": 0, "constant": False, "pixel_noise": False, "mixing": 0.0}
_LETTERS: dict[str, tuple[dict[str, Any], str]] = {
    "a": (_PROGRESSIVE | {"blur": False, "game": "wasserstein", "gp": 10.0, "r1": 0.0, "drift": 1e-3}, "A: the baseline, WGAN-GP"),
    "b": (_PROGRESSIVE, "B: blur, and the non-saturating game with R1"),
    "c": ({"constant": False, "pixel_noise": False, "mixing": 0.0}, "C: mapping and styles"),
    "d": ({"pixel_noise": False, "mixing": 0.0}, "D: a learned constant in the place of the input"),
    "e": ({"mixing": 0.0}, "E: noise"),
    "f": ({}, "F: mixing"),
}
"""The rows of table 1: what differs from F, and what a row adds to the one before."""


def _row(changed: dict[str, Any], adds: str) -> Run:
    """One configuration at an equal, short budget, for the comparison of rows. The penalties of A are not lazy, as published."""
    options = _FACES.options | changed | ({"lazy": 1} if "gp" in changed else {})
    measured = ("frechet", "mixing_damage") if options.get("style") != "plain" else ("frechet",)
    return replace(_FACES, options=options, steps=1500, metrics=measured, source=f"table 1, {adds}; at 32 px", reported={})


PRESETS = {
    "stylegan-lfw32": _FACES,
    **{f"stylegan-lfw32-{letter}": _row(*row) for letter, row in _LETTERS.items()},
    "stylegan-lfw32-face": replace(
        _FACES,
        conditions=("face",),
        steps=5000,
        metrics=("condition_correlation", "attribute_effect", "frechet"),
        source="configuration F with 40 attributes that mapping and D read",
        reported={},
    ),
    "stylegan-digits": Run(
        model="stylegan.StyleGAN",
        data="digits",
        options={"z_dim": 32, "width": 16, "widest": 32, "depth": 4, "style": "demodulated", "r1": 0.5, "lazy": 4},
        optimizers={"*": _ADAM},
        batch=32,
        steps=2000,
        half_life_images=5000,
        source="configuration F at the size of the embedded set, with labels",
    ),
    "stylegan-mnist": Run(
        model="stylegan.StyleGAN",
        data="mnist",
        options={"z_dim": 64, "width": 16, "widest": 64, "depth": 4, "style": "demodulated", "r1": 2.0, "lazy": 4},
        optimizers={"*": replace(_ADAM, lr=2e-3)},
        batch=32,
        steps=5000,
        half_life_images=10_000,
        metrics=("class_consistency", "class_consistency_worst", "diversity_ratio", "frechet"),
        source="configuration F with labels, and StyleGAN2's convolutions: with AdaIN it collapsed on sparse pictures",
    ),
    "stylegan-lfw64-paper": replace(
        _FACES,
        size=64,
        options={"z_dim": 512, "width": 64, "widest": 512, "r1": 10.0, "mirror": True, "grow_steps": 18_750},
        optimizers={"*": Optimizer(lr=1e-3, betas=(0.0, 0.99))},
        batch=32,
        steps=781_250,
        source="configuration F and its 25 million pictures at 64 px, half of the maps; a resolution grows in 600,000 pictures",
    ),
}
