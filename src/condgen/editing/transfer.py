"""Neural style transfer's energy: a picture's distance from one picture in content and from others in style.

    alpha L_content + beta L_style + tv L_tv + bounds L_bounds

Gatys, Ecker, Bethge 2016. The published and the released codes measure the same things in four ways, so that their weights cannot be
exchanged; a `Recipe` is one of these ways with its weights. F and P are the activations of the picture and of the content, G and A Gram
matrices of the picture and of the style, N channels and M places of a layer:

    relative    |F - P|^2 / |P|^2                      mean over layers of |G - A|^2 / |A|^2, where G = F F^T / M
    gatys2016   1/2 sum (F - P)^2                      mean over layers of sum (F F^T / M - A)^2 / (4 N^2)
    johnson     mean (F - P)^2                         sum over layers of mean (F F^T / (N M) - A)^2
    athalye     mean (F - P)^2                         mean over layers of mean (F F^T / (N M) - A)^2

L_tv is made of squared steps to the next pixel: their mean for "relative" and "gatys2016", on the scale of [-1, 1]; half their sum for
"johnson" and their mean for "athalye", both from 0 to 255. Johnson's code descends it without telling it; here it is told. Weights of the
last three were chosen for VGG-19, whose activations have another size than those of other nets; only "relative" means the same with all.

L_bounds, the mean square of what exceeds [-1, 1], is ours and of "relative" alone: a descent that is clipped only at its end lies outside
in many places, and clipping it then makes the style loss five times what it was (tubingen in the style of starry night: .0032 becomes
.0203; with it, .0033). The published recipes are without it, and pay that price.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from condgen.editing.tiles import Net
from condgen.errors import BadInput, require_range, unknown
from condgen.networks.features import CONVS
from condgen.objectives.perceptual import blended, gram, masked_gram, mean_squared, relative, total_variation

Activations = Mapping[str, Tensor]
CONTENT = ("relu4_2",)
STYLE = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


@dataclass(frozen=True)
class Measure:
    """One way to measure: `content(f, p)` and `style(g, a)` of a layer, `tv(x)` of a picture, (1,) each. Grams are divided by M, and by N
    where `by_channels`."""

    content: Callable[[Tensor, Tensor], Tensor]
    style: Callable[[Tensor, Tensor], Tensor]
    tv: Callable[[Tensor], Tensor] = total_variation
    by_channels: bool = False


def _half_sum(f: Tensor, p: Tensor) -> Tensor:
    return (f - p).square().flatten(1).sum(1) / 2


def _quarter_mean(g: Tensor, a: Tensor) -> Tensor:
    return mean_squared(g, a) / 4


LEVELS = 127.5
"""A step of 1 on the scale of [-1, 1] has so many from 0 to 255."""


def _half_sum_of_steps(x: Tensor) -> Tensor:
    return LEVELS**2 / 2 * (x.diff(dim=-1).square().sum((1, 2, 3)) + x.diff(dim=-2).square().sum((1, 2, 3)))


def _mean_of_steps(x: Tensor) -> Tensor:
    return LEVELS**2 * total_variation(x)


MEASURES = {
    "relative": Measure(relative, relative),
    "gatys2016": Measure(_half_sum, _quarter_mean),
    "johnson": Measure(mean_squared, mean_squared, _half_sum_of_steps, by_channels=True),
    "athalye": Measure(mean_squared, mean_squared, _mean_of_steps, by_channels=True),
}


def _even_weights(masks: Tensor) -> Tensor:
    """Each class counts alike, however small it is."""
    return masks.new_ones(len(masks))


def _released_weights(masks: Tensor) -> Tensor:
    """Each class counts by its share of the content, as the released code has it."""
    return masks.mean((1, 2, 3))


WEIGHTINGS: dict[str, Callable[[Tensor], Tensor]] = {"even": _even_weights, "released": _released_weights}
"""How much each class of a masked style counts; of masks (k, 1, h, w), (k,). The paper's own way is neither: its Grams are not divided by
a class's share, so that a class counts by its area squared and a difference in area is an error in itself."""


@dataclass(frozen=True)
class Recipe:
    """How losses are measured and weighted, and how they are descended.

    Args:
        measure: a key of MEASURES.
        content, style, tv, bounds: weights.
        content_layers, style_layers: of the feature net. The content's loss is the mean over its layers.
        style_sum: whether the style's layers add up, or count by their mean.
        class_weighting: how classes share a masked style loss: "released" by their part of the content, "even" all alike.
        optimizer, lr, history, steps: see `descent.Descent`.

    Raises:
        BadInput: for an unknown measure, no layers at all or a negative weight.
    """

    measure: str = "relative"
    content: float = 1.0
    style: float = 30.0
    tv: float = 0.0
    bounds: float = 100.0
    content_layers: tuple[str, ...] = CONTENT
    style_layers: tuple[str, ...] = STYLE
    style_sum: bool = False
    class_weighting: str = "released"
    optimizer: str = "lbfgs"
    lr: float | None = None
    history: int = 20
    steps: int = 200

    def __post_init__(self) -> None:
        if self.measure not in MEASURES:
            raise unknown("measure", self.measure, MEASURES)
        if self.class_weighting not in WEIGHTINGS:
            raise unknown("class weighting", self.class_weighting, WEIGHTINGS)
        require_range(0, float("inf"), content=self.content, style=self.style, tv=self.tv, bounds=self.bounds)
        if not self.content_layers or not self.style_layers:
            raise BadInput("a recipe needs a layer for the content and one for the style at least")


RECIPES = {
    "relative": Recipe(tv=1e-2),
    "gatys2016": Recipe("gatys2016", content=1.0, style=1e3, bounds=0.0, steps=1000, history=100),
    "johnson": Recipe("johnson", content=5.0, style=100.0, tv=1e-3, bounds=0.0, style_sum=True, steps=1000, history=100),
    "athalye": Recipe("athalye", content=5.0, style=500.0, tv=100.0, bounds=0.0, optimizer="adam", lr=10 / LEVELS, steps=1000),
}
"""By name. "relative" means the same with every net, and smooths a little. Athalye's code can mix relu5_2 into the content; by default it
does not. Its Adam has a rate of 10 from 0 to 255."""


@dataclass(frozen=True)
class Masks:
    """Where each class of things lies in the pictures.

    Args:
        content: (1, k, h, w) in [0, 1].
        styles: the same k classes of each style picture, of its own size.
        names: of the classes.
    """

    content: Tensor
    styles: list[Tensor]
    names: tuple[str, ...]


class Transfer:
    """The energy of one content and one or more styles, and how far a picture has come.

    Args:
        net: the eyes: a `FeatureNet`, or one behind `tiles.Tiled`.
        recipe: how it is measured.
        content: (1, 3, h, w) in [-1, 1].
        styles: pictures (1, 3, h', w'), at the scale at which their brush strokes should appear.
        shares: of each style; equal by default, scaled to a sum of 1.
        masks: where given, the style of each class is taken from the same class of the style alone.

    Raises:
        BadInput: for no style, shares or masks that do not fit.
    """

    def __init__(
        self,
        net: Net,
        recipe: Recipe,
        content: Tensor,
        styles: Sequence[Tensor],
        shares: Sequence[float] | None = None,
        masks: Masks | None = None,
    ):
        self.net, self.recipe, self.content, self.masks = net, recipe, content, masks
        self.measure = MEASURES[recipe.measure]
        self.shares = shares_of(shares, len(styles))
        if masks is not None:
            _require_masks(masks, content, styles)
        self.layers = tuple(dict.fromkeys((*recipe.content_layers, *recipe.style_layers)))
        self.places: dict[str, Tensor] = {}
        with torch.no_grad():
            own = net(content, recipe.content_layers)
            self.wanted: dict[str, Tensor] = {name: own[name] for name in recipe.content_layers}
            self.statistics = self._statistics(styles)

    def _statistics(self, styles: Sequence[Tensor]) -> dict[str, list[Tensor]]:
        """layer -> Gram matrix of each class (of one class where there are no masks), blended over the styles."""
        seen = [self._grams_of_style(i, s) for i, s in enumerate(styles)]
        of_layers = {name: zip(*(grams[name] for grams in seen), strict=True) for name in self.recipe.style_layers}
        return {name: [blended(list(parts), self.shares) for parts in of_classes] for name, of_classes in of_layers.items()}

    def _grams_of_style(self, i: int, style: Tensor) -> dict[str, list[Tensor]]:
        """layer -> Gram matrix of each class of one style; its activations are let go."""
        seen = self.net(style, self.recipe.style_layers)
        return {name: self._grams(seen[name], self._places(i, name, seen[name])) for name in self.recipe.style_layers}

    def _places(self, style: int | None, name: str, f: Tensor) -> Tensor | None:
        """Masks (k, 1, h, w) at the size of activations f of a layer: of a style, or of the content (None), which are made once."""
        if self.masks is None:
            return None
        if style is not None:
            return at_layer(self.masks.styles[style].to(f), name, f.shape[-2:]).transpose(0, 1)
        if name not in self.places:
            self.places[name] = at_layer(self.masks.content.to(f), name, f.shape[-2:]).transpose(0, 1)
        return self.places[name]

    def _grams(self, f: Tensor, masks: Tensor | None) -> list[Tensor]:
        """Of each class, divided by the class's share of the picture, so that classes of other sizes compare.

        A product of two masked channels holds m twice, so the share is the mean of m^2; the released code divides by that of m, which
        is the same for hard masks and makes a class the darker the softer it is.
        """
        scale = 1 / f.shape[1] if self.measure.by_channels else 1.0
        if masks is None:
            return [gram(f) * scale]
        return [masked_gram(f, m[None]) * scale / m.square().mean().clamp(min=1e-6) for m in masks]

    def energy(self, x: Tensor) -> dict[str, Tensor]:
        """The weighted terms "content", "style" and, where they have a weight, "tv" and "bounds" of a picture (1, 3, h, w): () each."""
        seen, recipe = self.net(x, self.layers), self.recipe
        terms = {"content": recipe.content * self.content_loss(seen), "style": recipe.style * self.style_loss(seen)}
        if recipe.tv:
            terms["tv"] = recipe.tv * self.measure.tv(x).sum()
        if recipe.bounds:
            terms["bounds"] = recipe.bounds * (x.abs() - 1).clamp(min=0).square().mean()
        return terms

    def content_loss(self, seen: Activations, measure: Measure | None = None) -> Tensor:
        of = measure or self.measure
        losses = [of.content(seen[name], self.wanted[name]) for name in self.recipe.content_layers]
        return torch.stack(losses).mean()

    def style_loss(self, seen: Activations, measure: Measure | None = None) -> Tensor:
        of = measure or self.measure
        losses = [self._layer_loss(name, seen[name], of, self.recipe.class_weighting) for name in self.recipe.style_layers]
        return torch.stack(losses).sum() if self.recipe.style_sum else torch.stack(losses).mean()

    def _layer_loss(self, name: str, f: Tensor, of: Measure, weighting: str = "released") -> Tensor:
        masks = self._places(None, name, f)
        losses = [of.style(g, a).sum() for g, a in zip(self._grams(f, masks), self.statistics[name], strict=True)]
        if masks is None:
            return losses[0]
        return torch.stack([weight * loss for weight, loss in zip(WEIGHTINGS[weighting](masks), losses, strict=True)]).sum()

    @torch.no_grad()
    def measures(self, x: Tensor) -> dict[str, float]:
        """ "content" and "style" of a picture as "relative" measures them, whatever the recipe is, without weights; classes count by their
        part of the content."""
        seen, way = self.net(x, self.layers), MEASURES["relative"]
        layers = [self._layer_loss(name, seen[name], way) for name in self.recipe.style_layers]
        return {"content": float(self.content_loss(seen, way)), "style": float(torch.stack(layers).mean())}

    def start(self, kind: str = "noise", seed: int = 0) -> Tensor:
        """The picture a descent starts from: white noise, or the content itself. Raises BadInput for another kind."""
        if kind == "content":
            return self.content.clone()
        if kind != "noise":
            raise unknown("start", kind, ("noise", "content"))
        generator = torch.Generator().manual_seed(seed)
        return (NOISE * torch.randn(self.content.shape, generator=generator)).to(self.content)


def at_layer(masks: Tensor, name: str, size: Sequence[int]) -> Tensor:
    """Masks (1, k, h, w) as VGG-19 carries them to a layer: the mean of 3x3 places at every convolution, half the size at every pooling.

    So an edge grows as soft as the layer's view is wide. Luan et al. 2017, released code.

    Args:
        name: of the layer, such as "relu3_1".
        size: (h', w') of its activations, where a net's poolings come to another.
    """
    level, last = (int(n) for n in name[-3:].split("_"))
    for above in range(1, level + 1):
        if above > 1:
            masks = F.interpolate(masks, size=[max(1, n // 2) for n in masks.shape[-2:]], mode="bilinear", align_corners=False)
        for _ in range(last if above == level else CONVS[above - 1]):
            masks = F.avg_pool2d(masks, 3, 1, 1, count_include_pad=False)
    return masks if masks.shape[-2:] == tuple(size) else F.interpolate(masks, size=tuple(size), mode="area")


NOISE = 0.05
"""Standard deviation of the noise a descent starts from, about mean gray."""


def shares_of(shares: Sequence[float] | None, n: int) -> list[float]:
    """Of n styles, scaled to a sum of 1; equal where none are given. Raises BadInput for no styles, and for numbers that are no shares."""
    if n == 0:
        raise BadInput("style transfer needs at least one style picture")
    given = [1.0] * n if shares is None else [float(s) for s in shares]
    if len(given) != n or min(given) < 0 or not 0 < sum(given) < float("inf"):
        raise BadInput(f"the shares of {n} styles are {shares!r}; expected {n} numbers of at least 0, not all 0")
    return [s / sum(given) for s in given]


def _require_masks(masks: Masks, content: Tensor, styles: Sequence[Tensor]) -> None:
    k = len(masks.names)
    if len(masks.styles) != len(styles):
        raise BadInput(f"there are masks of {len(masks.styles)} style pictures, and {len(styles)} style pictures")
    for mask, picture, of in zip([masks.content, *masks.styles], [content, *styles], ["the content", *["a style"] * len(styles)]):
        if tuple(mask.shape) != (1, k, *picture.shape[-2:]):
            expected = (1, k, *picture.shape[-2:])
            raise BadInput(f"the masks of {of} are {tuple(mask.shape)}; expected {expected} for {k} classes")
