"""Unpaired translation between two domains by cycle-consistent adversarial nets.

    L(G, F, D_X, D_Y) = L_GAN(G, D_Y) + L_GAN(F, D_X) + lambda (E|F(G(x)) - x|_1 + E|G(F(y)) - y|_1)               (3)

Zhu, Park, Isola & Efros 2017, arXiv 1703.10593, and the released Torch code. L_GAN is least squares (section 4): G descends
(D_Y(G(x)) - 1)^2, D_Y half of (D_Y(y) - 1)^2 + D_Y(G(x))^2, over the patches that D sees, and D is shown fakes of a pool (Shrivastava
et al. 2016, arXiv 1612.07828). The identity term lambda idt (E|G(y) - y|_1 + E|F(x) - x|_1) of section 5.2 keeps tints; the released
code has it everywhere.

Two generators and two discriminators, each pair moved by one optimiser as in the authors' PyTorch code. The Torch code zeroes the bias of
every convolution before each pass; here those before an instance norm, which would take it away, have none, and the few others keep theirs.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from condgen.conditions import Label, Schema, Values
from condgen.data.store import Batch
from condgen.errors import BadInput, require_positive, require_range, require_whole, unknown
from condgen.model import Model, Noise, Optimizer, Run, Shape, Turn
from condgen.networks.translation import DIVIDES, UP, PatchDiscriminator, TranslationNet

DOMAIN = "domain"


class CycleGAN(Model):
    """G: X -> Y and F: Y -> X, where X and Y are the two names of the condition `domain`; D_x and D_y tell real from translated.

    Args:
        shape: (c, h, w) of pictures in [-1, 1], with sides that are multiples of 4.
        schema: holds `domain`, a label of two names: X and Y. Other conditions are ignored.
        width: channels of the generators' first layer and of the discriminators'; 64 as published.
        blocks: residual blocks of a generator: 9 as published for 256 px, 6 for 128 px.
        layers: halvings of a discriminator; 3 for patches of 70 px, 2 for 34 px, 1 for 16 px.
        up: "transposed" as published, or "resize": nearest neighbours and a convolution, which leave no checkerboard.
        cycle: lambda of the cycle terms, L1 as a mean over the picture; 0 for none, and then there is no identity term.
        forward, backward: whether F(G(x)) = x, whether G(F(y)) = y is asked; the identity term of a generator goes with its cycle.
        identity: weight of the identity term, times lambda.
        gan: weight of the adversarial terms; 0 for no discriminators at all.
        pool: fakes that are kept, of each domain, for its discriminator; 0 for the latest alone.
        mirror: training pictures are mirrored at random.
        enlarge: training pictures are enlarged by this and cut back to their size at a random place; 286/256 as published.
    """

    evenly = DOMAIN
    channels_last = False  # a step takes 165 ms of one core without, 195 ms with (width 32, 6 blocks, 64 px)
    multiple: ClassVar[int] = DIVIDES  # of which the sides of a picture to translate are multiples
    critics = ("D_x", "D_y", "pool_x", "pool_y")

    def __init__(
        self,
        shape: Shape,
        schema: Schema,
        width: int = 64,
        blocks: int = 9,
        layers: int = 3,
        up: str = "transposed",
        cycle: float = 10.0,
        forward: bool = True,
        backward: bool = True,
        identity: float = 0.5,
        gan: float = 1.0,
        pool: int = 50,
        mirror: bool = False,
        enlarge: float = 1.0,
    ):
        super().__init__(shape, {DOMAIN: domain_of(schema)})
        require_positive(width=width)
        for name, value, least in (("blocks", blocks, 0), ("layers", layers, 1), ("pool", pool, 0)):
            require_whole(name, value, least)
        require_range(0, float("inf"), cycle=cycle, identity=identity, gan=gan)
        require_range(1, 2, enlarge=enlarge)
        if up not in UP:
            raise unknown("up", up, UP)
        check_shape(self.shape, layers)
        self.gan, self.identity, self.mirror, self.enlarge = gan, identity, mirror, enlarge
        self.cycles = (cycle if forward else 0.0, cycle if backward else 0.0)  # of x -> y -> x, of y -> x -> y
        if not gan and not any(self.cycles):
            raise BadInput("gan is 0 and no cycle is asked for: there is nothing to learn")
        channels = self.shape[0]
        self.G, self.F = (TranslationNet(channels, width, blocks, up) for _ in range(2))
        if gan:
            self.D_x, self.D_y = (PatchDiscriminator(channels, width, layers) for _ in range(2))
            self.pool_x, self.pool_y = (Pool(pool, self.shape) for _ in range(2))

    def players(self) -> dict[str, list[nn.Module]]:
        pairs: dict[str, list[nn.Module]] = {"G": [self.G, self.F]}
        return pairs | ({"D": [self.D_x, self.D_y]} if self.gan else {})

    def turns(self, batch: Batch, step: int) -> Iterator[Turn]:
        ways, n = self.ways(batch), len(batch.x)
        judges, pools = ((self.D_x, self.D_y), (self.pool_x, self.pool_y)) if self.gan else ((), ())
        for pool in pools:
            pool.new.clear()  # of a step that memory cut short

        # (3), min over G and F
        terms = {}
        if self.gan:
            terms["game"] = placed(ways, n, lambda w: self.gan * squared(judges[w.to](w.fake), 1))
        if any(self.cycles):
            terms["cycle"] = placed(ways, n, lambda w: w.cycle * absolute(w.back(w.fake), w.x) if w.cycle else None)
        if any(self.cycles) and self.identity:
            terms["identity"] = placed(ways, n, lambda w: None if w.same is None else w.cycle * self.identity * absolute(w.same, w.x))
        yield {"G": terms}

        # (3), max over D_X and D_Y, halved: tell a domain's own pictures from fakes, old and new
        if self.gan:
            shown = {w.to: pools[w.to].shown(w.fake.detach(), self.noise) for w in ways}
            yield {
                "D": {
                    "real": placed(ways, n, lambda w: squared(judges[1 - w.to](w.x), 1) / 2),
                    "fake": placed(ways, n, lambda w: squared(judges[w.to](shown[w.to]), 0) / 2),
                }
            }

    def ways(self, batch: Batch) -> tuple["Way", "Way"]:
        """X to Y, and Y to X."""
        real, domain = self.moved(batch.x), batch.c[DOMAIN]
        at_x, at_y = ((domain == value).nonzero()[:, 0] for value in (0, 1))
        x, y = real[at_x], real[at_y]
        there, back = self.cycles
        fake_y, same_y = self.drawn(self.G, x, y if back else None)
        fake_x, same_x = self.drawn(self.F, y, x if there else None)
        return Way(1, at_x, x, fake_y, same_x, self.F, there), Way(0, at_y, y, fake_x, same_y, self.G, back)

    def drawn(self, net: nn.Module, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """net(x), and net(y) in the same pass where y should stay as it is."""
        if y is None or not self.identity:
            return net(x), None
        fake, same = net(torch.cat([x, y])).split([len(x), len(y)])
        return fake, same

    def moved(self, x: Tensor) -> Tensor:
        """Training pictures mirrored and shifted at random, as far as the options say."""
        if self.mirror:
            x = torch.where((self.noise.uniform(len(x)) < 0.5).to(x.device)[:, None, None, None], x.flip(3), x)
        return x if self.enlarge == 1 else cut_back(x, self.enlarge, self.noise.uniform(len(x), 2).to(x.device))

    def after_step(self, joint: Callable[[Tensor], Tensor]) -> None:
        """The step's fakes enter the pools."""
        if self.gan:
            self.pool_x.remember(joint)
            self.pool_y.remember(joint)

    @torch.no_grad()
    def translate(self, x: Tensor, c: Values) -> Tensor:
        """Pictures x (b, c, h, w) in [-1, 1] drawn in the domains that c["domain"] names, int64 (b,): by G where it is 1, else by F.

        A picture that is of that domain already is drawn by the same net, which was asked to leave it as it is. The nets are convolutional
        and take any sides that are multiples of 4, from 8 px.

        Raises:
            BadInput: for other channels or sides, or domains that are not one for each picture.
        """
        check_pictures(x, self.shape[0])
        to = c[DOMAIN].to(x.device)
        if to.shape != (len(x),):
            raise BadInput(f"{len(x)} pictures and domains of shape {tuple(to.shape)}; expected one for each")
        drawn = torch.empty(x.shape, device=x.device)
        for value, net in ((1, self.G), (0, self.F)):
            if len(rows := (to == value).nonzero()[:, 0]):
                drawn[rows] = net(x[rows])
        return drawn


@dataclass(frozen=True)
class Way:
    """A batch's pictures of one domain on their way to the other.

    Args:
        to: the other domain, 0 for X and 1 for Y.
        rows: of the pictures in the batch, int64 (n,).
        x: the pictures (n, c, h, w).
        fake: they, drawn in the other domain.
        same: they, drawn in their own; None where it is not asked for.
        back: the net that draws their own domain.
        cycle: lambda of this way's cycle and identity.
    """

    to: int
    rows: Tensor
    x: Tensor
    fake: Tensor
    same: Tensor | None
    back: nn.Module
    cycle: float


def placed(ways: tuple[Way, Way], n: int, term: Callable[[Way], Tensor | None]) -> Tensor:
    """Each way's values at its pictures' places in the batch, (n,), so weighed that the batch's mean is the sum of the ways' means."""
    values = torch.zeros(n, device=ways[0].x.device)
    for way in ways:
        if (found := term(way)) is not None:
            values = values.index_add(0, way.rows, found * (n / max(1, len(way.rows))))
    return values


def squared(patches: Tensor, target: float) -> Tensor:
    """The mean over patches (b, 1, h, w) of (D - target)^2, (b,)."""
    return (patches - target).square().flatten(1).mean(1)


def absolute(x: Tensor, target: Tensor) -> Tensor:
    """The mean over the picture of |x - target|, (b,): the released code's L1."""
    return (x - target).abs().flatten(1).mean(1)


def cut_back(x: Tensor, enlarge: float, u: Tensor) -> Tensor:
    """Pictures (b, c, h, w) enlarged and cut to their size, at places that u (b, 2) in [0, 1) chooses from all there are."""
    h, w = x.shape[2:]
    wide = F.interpolate(x, size=(round(h * enlarge), round(w * enlarge)), mode="bilinear", align_corners=False)
    tops = (u[:, 0] * (wide.shape[2] - h + 1)).long().tolist()
    lefts = (u[:, 1] * (wide.shape[3] - w + 1)).long().tolist()
    return torch.stack([p[:, top : top + h, left : left + w] for p, top, left in zip(wide, tops, lefts, strict=True)])


class Pool(nn.Module):
    """Old fakes for a discriminator: the first `size` are kept and shown; each later one is shown, or, at even odds, an old one in whose
    place it is kept. It changes when a step is done, so that a step that must be taken again meets it as it was.

    Several processes keep one and the same pool.
    """

    kept: Tensor
    count: Tensor

    def __init__(self, size: int, shape: Shape):
        super().__init__()
        self.register_buffer("kept", torch.zeros(size, *shape))
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self.new: list[tuple[Tensor, Tensor]] = []
        """This step's fakes, and the place that each takes, -1 for none."""

    def shown(self, fake: Tensor, noise: Noise) -> Tensor:
        """What D sees in the place of these fakes (b, c, h, w), of which no gradient is asked."""
        size = len(self.kept)
        u = noise.uniform(len(fake), 2).to(fake.device)
        swapped = (u[:, 0] < 0.5) & (self.count >= size) & (size > 0)
        place = torch.where(swapped, (u[:, 1] * size).long(), -1)
        self.new.append((fake, place))
        return fake if size == 0 else torch.where(swapped[:, None, None, None], self.kept[place.clamp(min=0)], fake)

    def remember(self, joint: Callable[[Tensor], Tensor]) -> None:
        for fakes, places in self.new:
            for fake, place in zip(joint(fakes), joint(places).tolist(), strict=True):
                if self.count < len(self.kept):
                    place, self.count = int(self.count), self.count + 1
                if place >= 0:
                    self.kept[place] = fake
        self.new = []


# --- what cannot be ---------------------------------------------------------------------------------------------------------


def domain_of(schema: Schema) -> Label:
    """The label `domain` of two names. Raises BadInput where there is none such."""
    label = schema.get(DOMAIN)
    if isinstance(label, Label) and len(label.names) == 2:
        return label
    held = f"{DOMAIN!r} is {label}" if label else f"the conditions are {', '.join(schema) or 'none'}"
    raise BadInput(f"CycleGAN translates between two domains: it needs a label {DOMAIN!r} of two names (folders trainA and trainB); {held}")


def check_shape(shape: Shape, layers: int) -> None:
    """Raises BadInput for what is no picture that the nets can take."""
    if len(shape) != 3:
        raise BadInput(f"CycleGAN needs pictures (c, h, w), not samples of shape {tuple(shape)}")
    check_pictures(torch.empty(1, *shape, device="meta"), shape[0])
    least = 3 * 2**layers
    if min(shape[1:]) < least:
        remedy = "take larger pictures (--size) or fewer layers (--model.layers)"
        raise BadInput(f"a discriminator of {layers} halvings needs sides of at least {least} px, not {shape[1]}x{shape[2]}: {remedy}")


def check_pictures(x: Tensor, channels: int) -> None:
    if x.dim() != 4 or x.shape[1] != channels or any(side % DIVIDES or side < 2 * DIVIDES for side in x.shape[2:]):
        sides = f"sides that are multiples of {DIVIDES}, from {2 * DIVIDES} px"
        raise BadInput(f"pictures of shape {tuple(x.shape)}; expected (b, {channels}, h, w) with {sides}")


_ADAM = Optimizer(lr=2e-4, betas=(0.5, 0.999), schedule="half")
_SCENES = Run(
    model="cyclegan.CycleGAN",
    data="scenes-domains",
    size=64,
    options={"width": 32, "blocks": 6},
    optimizers={"*": _ADAM},
    batch=2,
    steps=8000,
    metrics=("domain_accuracy", "cycle_l1", "paired_gain", "mask_iou"),
    source="section 4 and appendix, at 64 px and half the width",
)
_SHORT = replace(_SCENES, steps=4000, source="with the identity term, half as long: beside the ablation, which has none")
_HORSES = replace(
    _SCENES,
    data="horse2zebra",
    steps=14_000,
    options={"width": 32, "blocks": 6, "mirror": True, "enlarge": 1.125},
    metrics=("domain_accuracy", "cycle_l1"),
    source="section 5.2 (horse to zebra), at 64 px and half the width",
)


def _ablated(source: str, **options: float | bool) -> Run:
    """Of equation (3), which has no identity term: one thing is changed at a time."""
    return replace(_SHORT, options=_SHORT.options | {"identity": 0.0} | options, source=source)


PRESETS = {
    "cyclegan-scenes": _SCENES,
    "cyclegan-scenes-no-identity": _ablated("table 4, the whole of equation (3)"),
    "cyclegan-scenes-short": _SHORT,
    "cyclegan-scenes-cycle-only": _ablated("table 4, cycle alone", gan=0.0),
    "cyclegan-scenes-gan-only": _ablated("table 4, GAN alone", cycle=0.0),
    "cyclegan-scenes-forward": _ablated("table 4, GAN and forward cycle", backward=False),
    "cyclegan-scenes-backward": _ablated("table 4, GAN and backward cycle", forward=False),
    "cyclegan-horse2zebra": _HORSES,
    "cyclegan-horse2zebra-paper": replace(
        _HORSES,
        size=128,
        options={"width": 64, "blocks": 6, "mirror": True, "enlarge": 143 / 128},
        steps=200 * 1334,
        save_every=1000,
        sample_every=1000,
        source="section 4 and appendix: 6 blocks at 128 px, 200 epochs of the 1,334 zebras",
    ),
}
