"""Conditional image synthesis with auxiliary classifiers.

    L_S = E log P(S = real | x) + E log P(S = fake | G(z, c))                                               (2)
    L_C = E log P(C = c | x)    + E log P(C = c | G(z, c))                                                  (3)

D maximises L_S + L_C, G maximises L_C - L_S. Odena, Olah & Shlens 2016, arXiv 1610.09585. D never reads the condition: it names it.
G's part of L_S is -log P(real | G) unless `game="minimax"`; the real half of either loss has no gradient in G.

With fakes in D's class loss, D is rewarded for fakes that are easy to name, and G draws prototypes (Shu et al. 2017, Gong et al.
2019): `aux_on_fake=False` trains D's classifier on real samples alone. A Label is named (cross-entropy); attributes, vectors,
boxes and key points are estimated (half the squared error of the standardised value, a unit normal's -log). `nets="paper"` are
table 1 for 32 px: transposed convolutions 384-192-96 from 4 px up, six convolutions 16 to 512, dropout 1/2. The table's batch norm in D
is given real and fake samples together: apart, its statistics tell them from each other.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condgen.conditions import Condition, Label, Picture, Schema, Text, Values
from condgen.data.store import Batch
from condgen.errors import BadInput, require_positive, require_range, unknown
from condgen.model import Optimizer, Run, Sampler, Shape, Turn
from condgen.models.gan import game_named
from condgen.networks.conv import ConvEncoder, ConvGenerator
from condgen.networks.embed import SchemaEmbedding
from condgen.networks.layers import SLOPE
from condgen.networks.mlp import MLP
from condgen.objectives.penalties import squared_gradient


class ACGAN(Sampler):
    """G reads the conditions, D tells real from fake and names the conditions.

    Args:
        shape: of a sample; pictures in [-1, 1]. Points get dense nets.
        schema: the conditions, at least one; a Text or a Picture cannot be named by D and is refused.
        z_dim: dimension of z ~ N(0, I).
        width: channels at full size of the house's nets, or half the width of dense ones.
        game: L_S, a key of `objectives.GAMES`; "minimax" is (2) to the letter.
        aux_on_fake: whether fakes are in D's class loss, as in (3).
        aux_weight: of L_C in both players' losses; 1 in the paper.
        noise: standard deviation of the noise on the activations of D: behind each convolution of the paper's, on the input of the others.
        r1: gamma of R1 on real samples; `lazy`: computed at every `lazy`-th step, `lazy` times as strong.
        nets: "conv" for the house's, "paper" for table 1.
        g_widths: channels of the paper's G, from its first picture to its last but one; each doubles the side.
        d_widths: channels of the paper's D; every other layer halves the side.
        dropout: behind each layer of the paper's D; the house's nets have none.
    """

    scale: Tensor

    def __init__(
        self,
        shape: Shape,
        schema: Schema,
        z_dim: int = 100,
        width: int = 32,
        game: str = "non_saturating",
        aux_on_fake: bool = True,
        aux_weight: float = 1.0,
        noise: float = 0.0,
        r1: float = 0.0,
        lazy: int = 1,
        nets: str = "conv",
        g_widths: tuple[int, ...] = (384, 192, 96),
        d_widths: tuple[int, ...] = (16, 32, 64, 128, 256, 512),
        dropout: float = 0.5,
    ):
        super().__init__(shape, schema)
        require_positive(z_dim=z_dim, width=width, lazy=lazy)
        require_range(0, math.inf, r1=r1, noise=noise, aux_weight=aux_weight)
        require_range(0, 1, dropout=dropout)
        if nets not in ("conv", "paper"):
            raise unknown("nets", nets, ["conv", "paper"])
        if not schema:
            raise BadInput("acgan needs at least one condition; the data has none: use gan, or add labels")
        if unnamed := [name for name, c in schema.items() if isinstance(c, Text | Picture)]:
            raise BadInput(
                f"acgan's D names every condition, and cannot name {', '.join(unnamed)}: leave it out (--conditions), or use cgan"
            )
        self.z_dim, self.game, self.aux_on_fake, self.aux_weight = z_dim, game_named(game), aux_on_fake, aux_weight
        self.r1, self.lazy = r1, lazy
        self.sizes = {name: answers(c) for name, c in self.schema.items()}
        out = 1 + sum(self.sizes.values())
        self.G: nn.Module
        self.D: nn.Module
        if len(self.shape) != 3:
            self.G = MLP(z_dim, (2 * width,) * 3, self.shape, self.schema, activation="leaky")
            self.D = MLP(math.prod(self.shape), (2 * width,) * 3, (out,), {}, activation="leaky")
        elif nets == "conv":
            self.G, self.D = ConvGenerator(z_dim, self.schema, self.shape, width), ConvEncoder(self.shape, {}, out, width)
        else:
            self.G, self.D = (
                TableGenerator(z_dim, self.schema, self.shape, g_widths),
                TableDiscriminator(self.shape, out, d_widths, dropout, noise),
            )
        self.jitter = Jitter(0.0 if nets == "paper" and len(self.shape) == 3 else noise)
        numbers = sum(size for name, size in self.sizes.items() if not isinstance(self.schema[name], Label))
        self.register_buffer("scale", torch.stack([torch.zeros(numbers), torch.ones(numbers)]))  # mean and deviation of what is estimated

    @torch.no_grad()
    def start(self, batch: Batch) -> None:
        """The scale on which real-valued conditions are estimated."""
        if self.scale.shape[1] and len(batch.x) > 1:
            v = torch.cat([batch.c[name].flatten(1) for name, c in self.schema.items() if not isinstance(c, Label)], 1)
            self.scale.copy_(torch.stack([v.mean(0), v.std(0).clamp(min=1e-3)]))

    def players(self) -> dict[str, list[nn.Module]]:
        return {"D": [self.D], "G": [self.G]}

    def turns(self, batch: Batch, step: int) -> Iterator[Turn]:
        x, c = batch.x, batch.c
        fake = self.G(self.prior(len(x), c), c).float()

        # D: (2) and (3). One forward pass of both, for nets with batch statistics
        if due := self.r1 and step % self.lazy == 0:
            x = x.detach().requires_grad_()
        real_out, fake_out = self.D(self.jitter(torch.cat([x, fake.detach()])), {}).float().chunk(2)
        terms = {"game": self.game.d(real_out[:, 0], fake_out[:, 0]), "class": self.aux_weight * self.unnamed(real_out, c)}
        if self.aux_on_fake:
            terms["class_fake"] = self.aux_weight * self.unnamed(fake_out, c)
        if due:
            terms["r1"] = self.lazy * self.r1 / 2 * squared_gradient(real_out[:, 0], x)
        yield {"D": terms}

        # G: L_C - L_S, of which only the fake halves move it
        real_out, fake_out = self.D(self.jitter(torch.cat([batch.x, fake])), {}).float().chunk(2)
        yield {"G": {"game": self.game.g(fake_out[:, 0], real_out[:, 0]), "class": self.aux_weight * self.unnamed(fake_out, c)}}

    def unnamed(self, out: Tensor, c: Values) -> Tensor:
        """-log P(C = c | x) for D's output (b, 1 + answers), (b,); sums over the conditions."""
        parts, at, losses = dict(zip(self.sizes, out[:, 1:].split(list(self.sizes.values()), 1), strict=True)), 0, []
        for name, condition in self.schema.items():
            if isinstance(condition, Label):
                losses.append(F.cross_entropy(parts[name], c[name], reduction="none"))
                continue
            size = self.sizes[name]
            mean, std = self.scale[:, at : at + size]
            at += size
            losses.append(0.5 * (parts[name] - (c[name].flatten(1) - mean) / std).square().sum(1))
        return torch.stack(losses).sum(0)

    def prior(self, n: int, c: Values) -> Tensor:
        return self.noise.normal(n, self.z_dim).to(self.device)

    def decode(self, z: Tensor, c: Values) -> Tensor:
        return self.G(z, c).float()


def answers(condition: Condition) -> int:
    """How many numbers D gives to name a condition: a logit for each label, an estimate for each number."""
    return len(condition.names) if isinstance(condition, Label) else math.prod(condition.shape)


class TableGenerator(nn.Module):
    """Table 1: z and the class embedded beside it -> dense, rectified -> transposed convolutions 5x5 that double the side -> tanh."""

    def __init__(self, z_dim: int, schema: Schema, shape: Shape, widths: tuple[int, ...]):
        super().__init__()
        halvings = len(widths)
        if any(s % 2**halvings for s in shape[1:]):
            raise BadInput(f"{halvings} doublings do not end at {shape[1]} x {shape[2]} px: give g_widths another length")
        self.side = tuple(s // 2**halvings for s in shape[1:])
        self.embed = SchemaEmbedding(schema, 10)
        self.dense = nn.Linear(z_dim + self.embed.out, widths[0] * math.prod(self.side))
        outs = [*widths[1:], shape[0]]
        layers: list[nn.Module] = []
        for a, b in zip(widths, outs, strict=True):
            layers.append(nn.ConvTranspose2d(a, b, 5, stride=2, padding=2, output_padding=1))
            layers += [nn.BatchNorm2d(b), nn.ReLU()] if len(layers) < 3 * (halvings - 1) else []
        self.layers = nn.Sequential(*layers)
        normal_weights(self)

    def forward(self, z: Tensor, c: Values) -> Tensor:
        h = torch.relu(self.dense(self.embed(c, z))).unflatten(1, (-1, *self.side))
        return torch.tanh(self.layers(h).float())


class TableDiscriminator(nn.Module):
    """Table 1: convolutions 3x3, each second one halving, with batch norm behind all but the first, leaky rectifier and dropout."""

    def __init__(self, shape: Shape, out: int, widths: tuple[int, ...], dropout: float, noise: float):
        super().__init__()
        layers: list[nn.Module] = []
        channels, h, w = shape
        for i, width in enumerate(widths):
            stride = 2 - i % 2
            norm = [nn.BatchNorm2d(width)] if i else []
            layers += [nn.Conv2d(channels, width, 3, stride, 1), *norm, nn.LeakyReLU(SLOPE), Jitter(noise), nn.Dropout(dropout)]
            channels, h, w = width, math.ceil(h / stride), math.ceil(w / stride)
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * h * w, out))
        normal_weights(self)

    def forward(self, x: Tensor, c: Values) -> Tensor:
        return self.layers(x).float()


class Jitter(nn.Module):
    """Adds N(0, sd^2) in training. Salimans et al. 2016, arXiv 1606.03498."""

    def __init__(self, sd: float):
        super().__init__()
        self.sd = sd

    def forward(self, x: Tensor) -> Tensor:
        return x + self.sd * torch.randn_like(x) if self.training and self.sd else x


@torch.no_grad()
def normal_weights(net: nn.Module, sd: float = 0.02) -> None:
    """Weights of convolutions and dense layers N(0, sd^2), their biases 0."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(module.weight, 0.0, sd)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


_MNIST = {"width": 32, "r1": 1.0, "lazy": 4, "z_dim": 100}

PRESETS = {
    "acgan-mnist": Run(
        model="acgan.ACGAN",
        data="mnist",
        size=32,
        options=_MNIST,
        optimizers={"*": Optimizer(lr=5e-4, betas=(0.0, 0.99), schedule="late")},
        steps=6000,
        half_life_images=20000,
        metrics=(
            "class_consistency",
            "class_consistency_worst",
            "ms_ssim",
            "ms_ssim_real",
            "discriminability",
            "diversity_ratio",
            "frechet",
            "memorisation_ratio",
        ),
        source="equations (2), (3), the house's nets; section 4.1's resolutions at 32 px",
    ),
    "acgan-mnist-real-only": Run(
        model="acgan.ACGAN",
        data="mnist",
        size=32,
        options={**_MNIST, "aux_on_fake": False},
        optimizers={"*": Optimizer(lr=5e-4, betas=(0.0, 0.99), schedule="late")},
        steps=6000,
        half_life_images=20000,
        metrics=("class_consistency", "class_consistency_worst", "ms_ssim", "ms_ssim_real", "diversity_ratio", "frechet"),
        source="the ablation: no fakes in D's class loss",
    ),
    "acgan-mnist-paper": Run(
        model="acgan.ACGAN",
        data="mnist",
        size=32,
        options={"z_dim": 100, "nets": "paper", "game": "minimax"},
        optimizers={"*": Optimizer(lr=2e-4, betas=(0.5, 0.999))},
        batch=100,
        steps=50_000,
        save_every=2000,
        sample_every=2000,
        metrics=("class_consistency", "class_consistency_worst", "ms_ssim", "ms_ssim_real", "diversity_ratio", "frechet"),
        source="table 1's layers at 32 px, L_C - L_S to the letter; Adam's beta2, printed as 10^-3, is 0.999",
    ),
}
