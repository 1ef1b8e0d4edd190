"""A conditional GAN for faces, whose conditions are drawn from a Parzen window.

    J_D = -1/2 E_x,y [log D(x, y)] - 1/2 E_z,y' [log(1 - D(G(z, y'), y'))]                              (3)
    J_G = -E_z,y' [log D(G(z, y'), y')],        y' ~ p_y(y') = 1/n sum_i N(y'; y_i, sigma^2 I)            (4)

Gauthier, "Conditional generative adversarial nets for convolutional face generation", 2014, and the code released with it. G is
two dense layers and one transposed convolution of stride 3 whose bias is each pixel's own; D three maxout convolutions, dropout
on the input of every layer. Pictures have no mean and an L2 norm of 55 (global contrast normalisation).

The released D adds y to its last linear unit only. The gradient of such a logit by x does not depend on y: G is never told to tie
x to y, and both marginals are matched by ignoring y. `head="additive"` is that; "joint" is the hidden layer over picture and
condition that the paper suggests, "projection" Miyato & Koyama's inner product (arXiv 1802.05637). Other deviations, each an
option: `nets="conv"`, the house's nets; `standardise`, because y has means of up to 6 and deviations from .5 to 3; `noise_real`,
the window's noise on real conditions too, else D tells the fakes by their y alone; Adam, R1, EMA and mirrored faces.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condgen.conditions import Attributes, Label, Schema, Values, Vector
from condgen.data.priors import KDE
from condgen.data.store import Batch
from condgen.errors import BadInput, require_positive, require_range, unknown
from condgen.model import Optimizer, Run, Sampler, Shape, Turn
from condgen.models.cgan import uniform_weights
from condgen.models.gan import game_named
from condgen.networks.conv import ConvEncoder, ConvGenerator
from condgen.networks.embed import embed
from condgen.networks.layers import SLOPE, Maxout, OneHot, contrast_normalised
from condgen.networks.maxout import Deconvolution, MaxoutCode
from condgen.networks.mlp import MLP
from condgen.objectives.penalties import squared_gradient

HEADS = ("additive", "joint", "projection")
UPDATES = ("alternating", "simultaneous")
NETS = ("gauthier", "conv")


class Gauthier(Sampler):
    """G and D read the conditions as one vector y; the y of fakes are rows of the data with noise.

    Args:
        shape: of a sample; pictures in [-1, 1]. Points get dense nets.
        schema: the conditions; {} makes the plain GAN that `from_unconditional` grows from.
        z_dim: dimension of z ~ N(0, I).
        nets: "gauthier" for the paper's, "conv" for the house's convolutional ones (points have dense ones with either).
        hidden: units of G's first dense layer (paper's nets).
        channels: maps of G's second layer (paper's nets): 80 maps of 10 x 10 at 32 px.
        filters: of D's three maxout convolutions (paper's nets).
        dense: units of D's code of the picture.
        width: channels at full size of the house's nets, or half the width of dense ones.
        head: how D joins code and condition: "additive", "joint" or "projection".
        game: a key of `objectives.GAMES`; "non_saturating" is (4).
        update: "simultaneous" (the released code) moves D and G on one forward pass, "alternating" D first (Algorithm 1).
        k: steps of D for each step of G.
        r1: gamma of R1 on real samples; `lazy`: computed at every `lazy`-th step, `lazy` times as strong.
        dropout: on the inputs of D's first and of its later layers (paper's nets and every head).
        gcn: L2 norm of a picture without its mean, 55 in the paper; 0 leaves pictures as they are. Paper's nets alone.
        standardise: read real-valued conditions with zero mean and unit variance.
        bandwidth: sigma of the window, in the units that y is read in; None chooses it by cross-validation, 0 is the data's rows.
        noise_real: add the window's noise to the conditions of real samples too.
        flip: show D real pictures mirrored half of the time.
        uniform: as released: initial weights U(-.05, .05) in G and U(-.005, .005) in D, and sigmoids in G's second layer (paper's nets);
            else the layers' own weights, and rectifiers.
    """

    d_share = 0.5
    """Of -log D - log(1 - D): the weight of D's cost, (3)."""

    bandwidth: Tensor
    light: Tensor

    def __init__(
        self,
        shape: Shape,
        schema: Schema,
        z_dim: int = 100,
        nets: str = "gauthier",
        hidden: int = 1024,
        channels: int = 32,
        filters: tuple[int, int, int] = (32, 32, 96),
        dense: int = 240,
        width: int = 32,
        head: str = "joint",
        game: str = "non_saturating",
        update: str = "alternating",
        k: int = 1,
        r1: float = 0.0,
        lazy: int = 1,
        dropout: tuple[float, float] = (0.0, 0.0),
        gcn: float = 0.0,
        standardise: bool = True,
        bandwidth: float | None = None,
        noise_real: bool = True,
        flip: bool = False,
        uniform: bool = False,
    ):
        super().__init__(shape, schema)
        require_positive(z_dim=z_dim, hidden=hidden, channels=channels, dense=dense, width=width, k=k, lazy=lazy)
        for what, value, valid in (("nets", nets, NETS), ("head", head, HEADS), ("update", update, UPDATES)):
            if value not in valid:
                raise unknown(what, value, valid)
        require_range(0, math.inf, r1=r1, gcn=gcn, bandwidth=bandwidth or 0.0)
        require_range(0, 1, dropout=dropout)
        if gcn and (nets == "conv" or len(self.shape) != 3):
            raise BadInput(f"gcn is {gcn:g}: normalised pictures are for the paper's nets; with nets={nets!r} or points it must be 0")
        self.z_dim, self.game, self.update, self.k = z_dim, game_named(game), update, k
        self.r1, self.lazy, self.gcn, self.noise_real, self.flip = r1, lazy, gcn, noise_real, flip
        self.standardise, self.fixed_bandwidth = standardise, bandwidth
        read, beside = Read(self.schema), Read(self.schema)
        kind = nets if len(self.shape) == 3 else "points"
        if kind == "gauthier":
            generate: nn.Module = Deconvolution(z_dim + read.out, hidden, channels, self.shape, sigmoid=uniform, bounded=not gcn)
            code: nn.Module = MaxoutCode(self.shape, filters, dense, dropout)
        else:
            generate, code = plain_networks(self.shape, z_dim + read.out, dense, width)
        self.G = Generator(read, generate)
        self.D = Discriminator(beside, code, dense, head, dropout[1], rectify=kind != "gauthier")
        if uniform:
            uniform_weights(self.G, 0.05)
            uniform_weights(self.D, 0.005)
        self.register_buffer("bandwidth", torch.tensor(bandwidth or 0.0))
        self.register_buffer("light", torch.tensor([0.0, 1.0]))  # mean and contrast that a normalised picture is shown with

    @torch.no_grad()
    def start(self, batch: Batch) -> None:
        """Means and deviations of the conditions, the width of their window, the usual light of a picture."""
        for net in (self.G.read, self.D.read):
            net.measure(batch.c, self.standardise)
        y = self.G.read.real(batch.c)
        if self.fixed_bandwidth is None and y.shape[1] and len(y) > 1:
            self.bandwidth.fill_(KDE(y).bandwidth)
        if self.gcn:
            flat = batch.x.flatten(1)
            self.light.copy_(torch.stack([flat.mean(), (flat - flat.mean(1, keepdim=True)).norm(dim=1).mean()]))

    def players(self) -> dict[str, list[nn.Module]]:
        return {"D": [self.D], "G": [self.G]}

    def turns(self, batch: Batch, step: int) -> Iterator[Turn]:
        x = contrast_normalised(batch.x, self.gcn) if self.gcn else batch.x
        if self.flip and x.dim() == 4:
            mirrored = self.noise.uniform(len(x)).to(x.device) < 0.5
            x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
        y = self.near(batch.c)
        y_real = self.near(batch.c) if self.noise_real else batch.c
        fake = self.G(self.prior(len(x), y), y)
        moves_g = (step + 1) % self.k == 0

        # (3): the 1/2 is the released code's, and halves D's learning rate under SGD
        together = self.update == "simultaneous"
        due = self.r1 and step % self.lazy == 0
        x = x.detach().requires_grad_() if due else x
        real_logit, fake_logit = self.D(x, y_real)[:, 0], self.D(fake if together else fake.detach(), y)[:, 0]
        d = {"game": self.d_share * self.game.d(real_logit, fake_logit)}
        if due:
            d["r1"] = self.lazy * self.r1 / 2 * squared_gradient(real_logit, x)
        if together:
            yield {"D": d} | ({"G": {"game": self.game.g(fake_logit, real_logit)}} if moves_g else {})
            return
        yield {"D": d}

        # (4)
        if moves_g:
            real = self.D(x, y_real)[:, 0] if self.game.paired else None
            yield {"G": {"game": self.game.g(self.D(fake, y)[:, 0], real)}}

    def near(self, c: Values) -> Values:
        """One draw from the window around each of these rows: (4). A batch is an even draw of the data's rows, so this is p_y.

        Noise goes to real-valued conditions; attributes stay in their range, those that are 0 or 1 as they are.
        """
        sigma, drawn = self.bandwidth, dict(c)
        for name, std in self.G.read.stds().items():
            v = c[name] + sigma * std * self.noise.normal(len(c[name]), *c[name].shape[1:]).to(c[name].device)
            if isinstance(kind := self.schema[name], Attributes):
                v = v.clamp(v.new_tensor(kind.low), v.new_tensor(kind.high))
                v = torch.where(torch.tensor(kind.binary, device=v.device), c[name], v)
            drawn[name] = v
        return drawn

    def prior(self, n: int, c: Values) -> Tensor:
        return self.noise.normal(n, self.z_dim).to(self.device)

    def decode(self, z: Tensor, c: Values) -> Tensor:
        x = self.G(z, c).float()
        if not self.gcn:
            return x
        mean, contrast = self.light
        return (x * contrast / self.gcn + mean).clamp(-1, 1)

    @classmethod
    def from_unconditional(cls, gan: "Gauthier", schema: Schema, **options: Any) -> "Gauthier":
        """Grow a trained GAN into a conditional one, as the released `retrain.py`: new inputs of G, a new output of D.

        All weights of `gan` are kept; columns for y start at U(-.005, .005), D's head afresh.

        Args:
            gan: without conditions.
            schema: what the new model reads.
            options: changed from those of `gan`, such as `head`; none that changes the shape of a layer.

        What left a run has no D; then D starts afresh. Where it is trained on is `condgen.train(run, out, model=grown)`.

        Raises:
            BadInput: where `gan` has conditions already, or a layer does not fit.
        """
        if gan.schema:
            raise BadInput(f"the model reads {', '.join(gan.schema)} already; only a GAN without conditions can be grown")
        grown = cls(gan.shape, schema, **{**gan.options, **options})
        pairs = [("G", gan.G.net, grown.G.net)] + ([("D", gan.D.code, grown.D.code)] if hasattr(gan, "D") else [])
        for name, old, new in pairs:
            before, after = old.state_dict(), new.state_dict()
            if before.keys() != after.keys():
                raise BadInput(f"the layers of {name} are others in the new model: keep the options of its nets")
            new.load_state_dict({key: _widened(f"{name}.{key}", value, after[key]) for key, value in before.items()})
        grown.light.copy_(gan.light)
        return grown.to(gan.device)


def _widened(name: str, old: Tensor, new: Tensor) -> Tensor:
    """The old weight with columns added for y."""
    if old.shape == new.shape:
        return old
    if old.dim() != 2 or old.shape[0] != new.shape[0] or old.shape[1] > new.shape[1]:
        raise BadInput(f"{name} has shape {tuple(old.shape)} and {tuple(new.shape)} in the new model: keep the options of its layers")
    added = torch.empty(len(old), new.shape[1] - old.shape[1], device=old.device).uniform_(-0.005, 0.005)
    return torch.cat([old, added], 1)


# --- nets -----------------------------------------------------------------------------------------------------------------


def plain_networks(shape: Shape, n_in: int, dense: int, width: int) -> tuple[nn.Module, nn.Module]:
    """The house's generator and code of a sample: convolutional for pictures, dense for points."""
    if len(shape) == 3:
        return ConvGenerator(n_in, {}, shape, width), ConvEncoder(shape, {}, dense, width)
    code = MLP(math.prod(shape), (2 * width,), (dense,), {}, activation="leaky")
    return MLP(n_in, (2 * width,) * 2, shape, {}, activation="leaky"), code


class Read(nn.Module):
    """Conditions as one vector y (b, out): numbers as they are or standardised, labels as one-hot, others by `embed`."""

    mean: Tensor
    std: Tensor

    def __init__(self, schema: Schema, dim: int = 32):
        super().__init__()
        self.numbers = [name for name, c in schema.items() if isinstance(c, Attributes | Vector)]
        self.others = [name for name in schema if name not in self.numbers]
        k = sum(schema[name].shape[0] for name in self.numbers)
        self.sizes = [schema[name].shape[0] for name in self.numbers]
        self.register_buffer("mean", torch.zeros(k))
        self.register_buffer("std", torch.ones(k))
        nets = [OneHot(len(c.names)) if isinstance(c := schema[name], Label) else embed(c, dim) for name in self.others]
        self.nets = nn.ModuleList(nets)
        self.out = k + sum(len(c.names) if isinstance(c := schema[name], Label) else dim for name in self.others)

    def measure(self, c: Values, standardise: bool) -> None:
        v = self._joined(c)
        if standardise and len(v) > 1 and v.shape[1]:
            self.mean.copy_(v.mean(0))
            self.std.copy_(v.std(0).clamp(min=1e-3))

    def stds(self) -> dict[str, Tensor]:
        """Name -> the deviation (k,) that each entry is divided by."""
        return dict(zip(self.numbers, self.std.split(self.sizes), strict=True)) if self.numbers else {}

    def real(self, c: Values) -> Tensor:
        """The real-valued part of y."""
        return (self._joined(c) - self.mean) / self.std

    def _joined(self, c: Values) -> Tensor:
        rows = [c[name] for name in self.numbers]
        return torch.cat(rows, 1) if rows else self.mean.new_zeros(len(next(iter(c.values()), [])), 0)

    def forward(self, c: Values, beside: Tensor) -> Tensor:
        """(b, n) -> (b, n + out)."""
        numbers = [self.real(c).to(beside.dtype)] if self.numbers else []
        return torch.cat([beside, *numbers, *(net(c[name]).to(beside.dtype) for name, net in zip(self.others, self.nets, strict=True))], 1)


class Generator(nn.Module):
    def __init__(self, read: Read, net: nn.Module):
        super().__init__()
        self.read, self.net = read, net

    def forward(self, z: Tensor, c: Values) -> Tensor:
        return self.net(self.read(c, z), {}).float()


class Discriminator(nn.Module):
    """A code of the picture, joined with y by one of HEADS: (b, 1)."""

    def __init__(self, read: Read, code: nn.Module, dense: int, head: str, dropout: float, rectify: bool):
        super().__init__()
        self.read, self.code, self.rectify, self.dropout = read, code, rectify, nn.Dropout(dropout)
        self.head = head if read.out else "additive"
        self.joint = Maxout(dense + read.out, dense, 5) if self.head == "joint" else None
        self.project = nn.Linear(read.out, dense) if self.head == "projection" else None
        self.last = nn.Linear(dense + (read.out if self.head == "additive" else 0), 1)

    def forward(self, x: Tensor, c: Values) -> Tensor:
        h = self.code(x, {})
        h = F.leaky_relu(h, SLOPE) if self.rectify else h
        if self.project is not None:
            y = self.project(self.read(c, h[:, :0]))
            return (self.last(self.dropout(h)) + (y * h).sum(1, keepdim=True)).float()
        h = self.dropout(self.read(c, h))
        return self.last(h if self.joint is None else self.joint(h)).float()


_FIXED = {"nets": "conv", "z_dim": 64, "head": "joint", "r1": 1.0, "lazy": 4, "flip": True}

PRESETS = {
    "gauthier-lfw-fixed": Run(
        model="gauthier.Gauthier",
        data="lfwcrop32",
        options=_FIXED,
        optimizers={"*": Optimizer(lr=5e-4, betas=(0.0, 0.99), schedule="late")},
        batch=64,
        steps=9000,
        half_life_images=20000,
        metrics=(
            "condition_correlation",
            "attribute_effect",
            "memorisation_ratio",
            "parzen_gcn",
            "frechet",
            "precision",
            "recall",
            "diversity_ratio",
        ),
        source="equations (3), (4), with a joint hidden layer in D, standardised conditions and the house's nets",
        reported={"parzen_gcn": (2934, 22)},
    ),
    "gauthier-lfw-paper": Run(
        model="gauthier.Gauthier",
        data="lfwcrop32",
        conditions=("look",),
        options={
            "hidden": 8000,
            "channels": 80,
            "filters": (32, 32, 192),
            "dense": 500,
            "head": "additive",
            "update": "simultaneous",
            "dropout": (0.2, 0.5),
            "gcn": 55.0,
            "standardise": False,
            "bandwidth": 1.0,
            "noise_real": False,
            "uniform": True,
        },
        optimizers={"*": Optimizer("SGD", lr=0.004, momentum=0.5, schedule="gauthier")},
        batch=128,
        steps=92_000,
        save_every=2000,
        sample_every=2000,
        metrics=("condition_correlation", "memorisation_ratio", "parzen_gcn", "diversity_ratio"),
        source="sections 3.2 and 4, and the released code: 1,000 epochs",
        reported={"parzen_gcn": (2934, 22)},
    ),
}
PRESETS["gauthier-lfw-additive"] = replace(
    PRESETS["gauthier-lfw-fixed"], options={**_FIXED, "head": "additive"}, source="the fixed preset with the released additive head"
)
