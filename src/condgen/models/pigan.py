"""The task-specific adversarial cost.

    min_G max_D  pi E_x[log D(x)] + (1 - pi) E_z[log(1 - D(G(z)))]                                          (1)

At D's optimum this is JS_pi[P||Q] + pi log pi + (1 - pi) log(1 - pi), JS_pi = pi KL[P||M] + (1 - pi) KL[Q||M], M = pi P + (1 - pi) Q.
JS_pi / pi goes to KL[P||Q] as pi goes to 0 (cover the data: retrieval), JS_pi / (1 - pi) to KL[Q||P] as pi goes to 1 (good samples).
Creswell & Bharath 2016, "Task specific adversarial cost function", and the released code, piGAN. (The sentence above
the equations of the two limits has them the wrong way round; the equations are followed.)

The released G descends -log D(G(z)) without weight, `g_loss="non_saturating"`: that does not minimise JS_pi. `g_loss="minimax"` is (1). D's
features before its last layer, `features`, serve retrieval and one-shot learning. `nets="paper"` are the released ones for 105 px,
whose batch norm sees real and fake samples apart; `joint_batch` shows them together. `nets="normal"` draws from one normal of
learnt mean and deviations: the divergences' own illustration.
"""

import math
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condgen.conditions import Schema, Values
from condgen.data.store import Batch
from condgen.errors import BadInput, require_positive, require_range, unknown
from condgen.model import Optimizer, Run, Sampler, Shape, Turn
from condgen.networks.conv import ConvEncoder, ConvGenerator
from condgen.networks.layers import SLOPE
from condgen.networks.mlp import MLP
from condgen.objectives.games import task_specific
from condgen.objectives.penalties import squared_gradient

G_LOSSES = ("minimax", "non_saturating")
NETS = ("conv", "paper", "normal")
PRIORS = ("normal", "uniform")


class PiGAN(Sampler):
    """A GAN whose D weighs real samples by pi and fakes by 1 - pi.

    Args:
        shape: of a sample; pictures in [-1, 1].
        schema: ignored: the model draws from the whole of the data.
        pi: weight of the real samples, in (0, 1).
        g_loss: "minimax" is (1), which minimises JS_pi; "non_saturating" is the released code's.
        z_dim: dimension of z.
        z_prior: "normal" for N(0, I), "uniform" for the unit hypercube.
        nets: "conv" for the house's (dense for points), "paper" for the released ones, "normal" for a single normal distribution.
        width: channels at full size of the house's nets, or half the width of dense ones.
        k: steps of D for each step of G.
        joint_batch: whether D sees real and fake samples in one forward pass.
        r1: gamma of R1 on real samples; `lazy`: computed at every `lazy`-th step, `lazy` times as strong.
    """

    critics = ("D",)

    def __init__(
        self,
        shape: Shape,
        schema: Schema | None = None,
        pi: float = 0.5,
        g_loss: str = "minimax",
        z_dim: int = 64,
        z_prior: str = "normal",
        nets: str = "conv",
        width: int = 32,
        k: int = 1,
        joint_batch: bool = True,
        r1: float = 0.0,
        lazy: int = 1,
    ):
        super().__init__(shape, {})
        require_positive(z_dim=z_dim, width=width, lazy=lazy, k=k)
        require_range(0, math.inf, r1=r1)
        if not 0 < pi < 1:
            raise BadInput(f"pi is {pi!r}; expected a number between 0 and 1, such as .1 (cover the data) or .9 (good samples)")
        for what, value, valid in (("g_loss", g_loss, G_LOSSES), ("nets", nets, NETS), ("prior of z", z_prior, PRIORS)):
            if value not in valid:
                raise unknown(what, value, valid)
        if nets == "paper" and len(self.shape) != 3:
            raise BadInput(f"nets='paper' are for pictures, not for samples of shape {self.shape}")
        self.pi, self.game, self.z_prior, self.k = pi, task_specific(pi, g_loss), z_prior, k
        self.z_dim = math.prod(self.shape) if nets == "normal" else z_dim
        self.joint_batch, self.r1, self.lazy = joint_batch, r1, lazy
        self.G, self.F, code_dim = networks(nets, self.shape, self.z_dim, width)
        self.D = nn.Linear(code_dim, 1)

    def players(self) -> dict[str, list[nn.Module]]:
        return {"D": [self.F, self.D], "G": [self.G]}

    def turns(self, batch: Batch, step: int) -> Iterator[Turn]:
        x = batch.x
        fake = self.G(self.prior(len(x), batch.c), batch.c).float()

        # (1), max over D
        if due := self.r1 and step % self.lazy == 0:
            x = x.detach().requires_grad_()
        real_logit, fake_logit = self.judged(x, fake.detach())
        terms = {"game": self.game.d(real_logit, fake_logit)}
        if due:
            terms["r1"] = self.lazy * self.r1 / 2 * squared_gradient(real_logit, x)
        yield {"D": terms}

        # (1), min over G
        if (step + 1) % self.k == 0:
            yield {"G": {"game": self.game.g(self.judged(batch.x, fake)[1], None)}}

    def judged(self, x: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """D's logits (b,) on real and on fake samples."""
        if self.joint_batch:
            real, drawn = self.D(self.features(torch.cat([x, fake])))[:, 0].float().chunk(2)
            return real, drawn
        return self.D(self.features(x))[:, 0].float(), self.D(self.features(fake))[:, 0].float()

    def features(self, x: Tensor) -> Tensor:
        """What D's last layer reads off samples (b, *shape): (b, d), for retrieval and one-shot learning."""
        return F.leaky_relu(self.F(x, {}), SLOPE).flatten(1)

    def prior(self, n: int, c: Values) -> Tensor:
        draw = self.noise.normal if self.z_prior == "normal" else self.noise.uniform
        return draw(n, self.z_dim).to(self.device)

    def decode(self, z: Tensor, c: Values) -> Tensor:
        return self.G(z, c).float()


def networks(nets: str, shape: Shape, z_dim: int, width: int) -> tuple[nn.Module, nn.Module, int]:
    """Generator, features and the length of these."""
    if nets == "paper":
        return BilinearGenerator(z_dim, shape), (features := PaperFeatures(shape)), features.out
    points = MLP(math.prod(shape), (2 * width,) * 2, (2 * width,), {}, activation="leaky") if len(shape) != 3 or nets == "normal" else None
    if nets == "normal":
        assert points is not None
        return Normal(shape), points, 2 * width
    if points is not None:
        return MLP(z_dim, (2 * width,) * 3, shape, {}, activation="leaky"), points, 2 * width
    return ConvGenerator(z_dim, {}, shape, width), ConvEncoder(shape, {}, 8 * width, width), 8 * width


class Normal(nn.Module):
    """mean + deviation * z, both learnt; it starts as N(0, 1)."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.mean, self.log_std = nn.Parameter(torch.zeros(shape)), nn.Parameter(torch.zeros(shape))

    def forward(self, z: Tensor, c: Values) -> Tensor:
        return self.mean + self.log_std.exp() * z.unflatten(1, self.mean.shape)


class BilinearGenerator(nn.Module):
    """z -> 256 maps -> three times: doubled bilinearly, convolved (128, 64, 1 maps). Batch norm, leaky rectifiers.

    105 px as released: 13 -> 26 -> 52 -> 104, where the last kernel, 4x4, adds a pixel. Other sizes are cut from the next larger.
    """

    def __init__(self, z_dim: int, shape: Shape):
        super().__init__()
        self.shape = shape
        self.side = tuple(math.ceil((s - 1) / 8) for s in shape[1:])
        self.dense = nn.Sequential(nn.Linear(z_dim, 256 * math.prod(self.side)), nn.Unflatten(1, (256, *self.side)), _normed(256))
        doubled = nn.Upsample(scale_factor=2, mode="bilinear")
        self.layers = nn.Sequential(
            doubled, nn.Conv2d(256, 128, 5, padding=2), _normed(128), doubled, nn.Conv2d(128, 64, 5, padding=2), _normed(64),
            doubled, nn.Conv2d(64, shape[0], 4, padding=2),
        )  # fmt: skip
        glorot(self)

    def forward(self, z: Tensor, c: Values) -> Tensor:
        x = self.layers(self.dense(z))[:, :, : self.shape[1], : self.shape[2]]
        return 2 * torch.sigmoid(x.float()) - 1


class PaperFeatures(nn.Module):
    """Convolutions 5x5 with stride 2 to 32, 128 and 256 maps, batch norm, rectifiers; flat: 50,176 numbers at 105 px."""

    def __init__(self, shape: Shape):
        super().__init__()
        channels, layers = shape[0], []
        h, w = shape[1:]
        for width in (32, 128, 256):
            layers += [nn.Conv2d(channels, width, 5, stride=2, padding=2), nn.BatchNorm2d(width), nn.ReLU()]
            channels, h, w = width, math.ceil(h / 2), math.ceil(w / 2)
        self.layers, self.out = nn.Sequential(*layers), channels * h * w
        glorot(self)

    def forward(self, x: Tensor, c: Values) -> Tensor:
        return self.layers((x + 1) / 2).flatten(1)


def _normed(channels: int) -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(channels), nn.LeakyReLU(SLOPE))


@torch.no_grad()
def glorot(net: nn.Module) -> None:
    """Glorot's uniform weights, biases 0."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


PRESETS = {
    "pigan-omniglot": Run(
        model="pigan.PiGAN",
        data="omniglot",
        size=32,
        options={"pi": 0.5, "r1": 1.0, "lazy": 4, "width": 16},
        optimizers={"*": Optimizer(lr=5e-4, betas=(0.0, 0.99), schedule="late")},
        steps=2500,
        half_life_images=20000,
        metrics=("one_shot_accuracy", "retrieval_map", "precision", "recall", "memorisation_ratio"),
        source="equation (1), the house's nets at 32 px; --model.pi .1 and .9 are the other two of the paper",
    ),
    "pigan-omniglot-paper": Run(
        model="pigan.PiGAN",
        data="omniglot",
        options={"pi": 0.5, "g_loss": "non_saturating", "z_dim": 2, "z_prior": "uniform", "nets": "paper", "joint_batch": False},
        optimizers={"*": Optimizer(lr=2e-4, betas=(0.5, 0.999), weight_decay=1e-5)},
        batch=128,
        steps=2000,
        metrics=("one_shot_accuracy", "retrieval_map", "precision", "recall"),
        source="the released code",
    ),
    "pigan-mixture1d": Run(
        model="pigan.PiGAN",
        data="mixture1d",
        options={"pi": 0.05, "nets": "normal", "k": 2, "width": 32},
        optimizers={"D": Optimizer(lr=5e-3, betas=(0.5, 0.99)), "G": Optimizer(lr=3e-2, betas=(0.5, 0.99), schedule="late")},
        batch=512,
        steps=6000,
        half_life_images=50_000,
        precision="32",
        metrics=("diversity_ratio",),
        source="equation (1) on a mixture of two normals: pi = .05 covers both, pi = .9 picks one",
    ),
}
