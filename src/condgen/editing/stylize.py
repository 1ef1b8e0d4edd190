"""Neural style transfer of a picture: its content is kept and other pictures' style is put on, by descent of its pixels.

    x* = argmin_x  alpha L_content(x, p) + beta L_style(x, a) + tv L_tv(x)

Gatys, Ecker & Bethge 2016. `transfer` measures, `descent` descends, `coarse` knows the sizes a large picture goes through, `colours` whose
colours it gets, `tiles` how it fits into memory. The style is brought to the area of the content (Ruder et al. 2016), so that its strokes
are as wide as they would be in a painting of that size.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from condgen.editing.coarse import SMALLEST_PX, masks_at, of_area, resized, sizes
from condgen.editing.colours import finished, prepared
from condgen.editing.descent import Descent, Moment
from condgen.editing.tiles import Net, Tiled, bytes_kept
from condgen.editing.transfer import RECIPES, Masks, Recipe, Transfer
from condgen.errors import BadInput, require_positive, require_whole, unknown

MOST_PIXELS = 8_000_000
"""Of a picture that is painted: beyond it the descent's own memory, which no tile makes smaller, passes a few GB."""
AT_ONCE_BYTES = 1 << 30
"""What a net may keep for the way back; more is looked at in tiles."""
HISTORY_BYTES = 512 << 20
"""What L-BFGS may remember: of large pictures it remembers fewer steps."""
FEWEST_REMEMBERED = 4


SMOOTH = replace(RECIPES["relative"], tv=2.0)
"""What a picture is painted by: less grain than RECIPES["relative"], of which clips and photographs are made, for two in a hundred more
content and style loss."""


@dataclass(frozen=True)
class Plan:
    """How a picture is painted.

    Args:
        recipe: how it is measured and descended; its steps are those of the smallest size, each larger one has half as many.
        start: "content", the photograph itself, or "noise", as published. From the photograph edges are kept more; losses end about the
            same.
        colours: a key of `colours.COLOURS`.
        levels: sizes it goes through, each twice the last; by default from a longer side of at most 256 px.
        style_scale: of the style's strokes: 1 where the style has the content's area, 2 for strokes twice as wide.
        seed: of the noise.

    Raises:
        BadInput: for numbers that are none of these.
    """

    recipe: Recipe = SMOOTH
    start: str = "content"
    colours: str = "style"
    levels: int | None = None
    style_scale: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise unknown("start", self.start, STARTS)
        if self.levels is not None:
            require_whole("levels", self.levels, 1, 8)
        require_positive(style_scale=self.style_scale)
        require_whole("seed", self.seed, 0)


STARTS = ("noise", "content")


def stylize(
    net: Net,
    content: Tensor,
    styles: Sequence[Tensor],
    plan: Plan | None = None,
    shares: Sequence[float] | None = None,
    masks: Masks | None = None,
) -> "Stylization":
    """Paint the content in the style of other pictures.

    Args:
        net: the eyes, such as `backbones.feature_net()` gives.
        content: (1, 3, h, w) in [-1, 1]; the painting has its size.
        styles: pictures (1, 3, h', w') in [-1, 1], of any size.
        plan: how; by default as `Plan` has it, which is what the command does.
        shares: of each style; equal by default.
        masks: where the style of each class comes from; of the sizes of content and styles.

    Returns:
        an iterator of moments: `for moment in stylize(...)`, and then its `.picture()`.

    Raises:
        BadInput: for pictures of no use: too small, too large, not RGB, not finite; for shares and masks that do not fit, and for strokes
            so wide that the style would be larger than a picture may be.
    """
    return Stylization(net, content, styles, plan or Plan(), shares, masks)


class Stylization:
    """A painting under way. Iterating goes on from where it stands; see `stylize`.

    Args:
        as of `stylize`.
    """

    def __init__(
        self,
        net: Net,
        content: Tensor,
        styles: Sequence[Tensor],
        plan: Plan,
        shares: Sequence[float] | None = None,
        masks: Masks | None = None,
    ):
        for x, what in [(content, "the content"), *((s, "a style") for s in styles)]:
            _require_picture(x, what)
        self.plan, self.content, self.shares, self.masks = plan, content, shares, masks
        self.net = roomy(net, plan.recipe, content, style_pixels(content, plan.style_scale))
        self.seen, self.styles = prepared(content, styles, plan.colours)
        h, w = content.shape[-2:]
        self.sizes = sizes(h, w, plan.levels)
        self.counts = [max(1, round(plan.recipe.steps / 2**k)) for k in range(len(self.sizes))]
        self.level = 0
        self.transfer = self._transfer(0)
        self.descent = self._descent(self.transfer.start(plan.start, plan.seed))

    @property
    def steps(self) -> int:
        """Evaluations in all, of all sizes."""
        return sum(self.counts)

    @property
    def step(self) -> int:
        """Evaluations made."""
        return sum(self.counts[: self.level]) + self.descent.step

    def _transfer(self, level: int) -> Transfer:
        h, w = self.sizes[level]
        content = resized(self.seen, (h, w))
        styles = [resized(s, of_area(s, style_pixels(content, self.plan.style_scale))) for s in self.styles]
        return Transfer(self.net, self.plan.recipe, content, styles, self.shares, masks_at(self.masks, content, styles))

    def _descent(self, x: Tensor) -> Descent:
        recipe = self.plan.recipe
        return Descent(x, self.transfer.energy, self.counts[self.level], recipe.optimizer, recipe.lr, remembered(recipe.history, x))

    def __iter__(self) -> Iterator[Moment]:
        """One moment for each evaluation; its step counts through all sizes, and its picture has the size it is painted at."""
        while self.step < self.steps:
            if self.descent.step == self.counts[self.level]:
                self._grow()
            yield replace(self.descent.advance(), step=self.step)

    def _grow(self) -> None:
        """The next size, from the best of the last one."""
        x = self.descent.best
        self.level += 1
        self.transfer = self._transfer(self.level)
        self.descent = self._descent(resized(x, self.sizes[self.level]))

    def picture(self) -> Tensor:
        """The best so far, (1, 3, h, w) in [-1, 1], of the size and, where they are kept, with the colours of the content.

        Not the last: L-BFGS takes no line search, and now and then a step too far, from which it comes back.
        """
        return finished(resized(self.descent.best, self.content.shape[-2:]), self.content, self.plan.colours)

    def measures(self) -> dict[str, float]:
        """ "content" and "style" of the best so far, clipped to [-1, 1], as `Transfer.measures` has them."""
        return self.transfer.measures(self.descent.best.clamp(-1, 1))

    # --- resuming ---

    def state(self) -> dict[str, Tensor]:
        """All that the next steps depend on; the same pictures, net and plan with it go on as if they had never stopped."""
        return {"level": torch.tensor(self.level), **{f"descent.{k}": v for k, v in self.descent.state().items()}}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from `state()`. Raises BadInput where it is of another painting."""
        level = int(state.get("level", torch.tensor(-1)))
        if not 0 <= level < len(self.sizes):
            raise BadInput(f"the state is of size {level} of {len(self.sizes)}: it is of another picture")
        if level != self.level:
            self.level, self.transfer = level, self._transfer(level)
            self.descent = self._descent(resized(self.transfer.content, self.sizes[level]))
        self.descent.restore({k.removeprefix("descent."): v for k, v in state.items() if k.startswith("descent.")})


# --- what there is room for -------------------------------------------------------------------------------------------------


def style_pixels(content: Tensor, scale: float) -> float:
    """The area a style is brought to, for strokes `scale` times as wide as those of a painting of the content's size.

    Raises:
        BadInput: for more than `MOST_PIXELS`.
    """
    pixels = content.shape[-2:].numel()
    if pixels <= MOST_PIXELS < pixels * scale**2:  # a content that is too large by itself is `roomy`'s to refuse
        most = int(100 * (MOST_PIXELS / pixels) ** 0.5) / 100
        raise BadInput(
            f"strokes {scale:g} times as wide make the style a picture of {pixels * scale**2 / 1e6:.1f} megapixels; at most "
            f"{MOST_PIXELS / 1e6:g} are looked at: a scale of {most:g} or less"
        )
    return pixels * scale**2


def roomy(net: Net, recipe: Recipe, content: Tensor, style_pixels: float = 0) -> Net:
    """The net itself where what it keeps of such a picture, or of a style of so many pixels, is at most a GiB, else the net behind tiles.

    Raises:
        BadInput: for a picture of more than `MOST_PIXELS`.
    """
    h, w = content.shape[-2:]
    layers = (*recipe.content_layers, *recipe.style_layers)
    if h * w > MOST_PIXELS:
        side = int(max(h, w) * (MOST_PIXELS / (h * w)) ** 0.5)
        raise BadInput(
            f"the picture has {h * w / 1e6:.1f} megapixels; at most {MOST_PIXELS / 1e6:g} are painted, which takes about "
            f"{descent_bytes(recipe, MOST_PIXELS) / 2**30:.0f} GiB besides the net's: make it smaller, such as --size {side}"
        )
    return net if bytes_kept(net, layers) * max(h * w, style_pixels) <= AT_ONCE_BYTES else Tiled(net)


def remembered(history: int, x: Tensor) -> int:
    """Steps that L-BFGS remembers of such a picture: two pictures each."""
    return max(min(history, HISTORY_BYTES // (2 * x.numel() * x.element_size())), min(history, FEWEST_REMEMBERED))


def descent_bytes(recipe: Recipe, pixels: int) -> int:
    """What the descent itself holds: the memory of L-BFGS, or Adam's two means, and about six pictures more."""
    x = torch.empty(3 * pixels, device="meta")
    pairs = remembered(recipe.history, x) if recipe.optimizer == "lbfgs" else 1
    return (2 * pairs + 6) * x.numel() * x.element_size()


def _require_picture(x: Any, what: str) -> None:
    if not isinstance(x, Tensor) or x.dim() != 4 or x.shape[:2] != (1, 3) or min(x.shape[-2:]) < SMALLEST_PX:
        raise BadInput(f"{what} is of shape {tuple(x.shape)}; expected (1, 3, h, w) of at least {SMALLEST_PX} px a side")
    if not bool(x.isfinite().all()):
        raise BadInput(f"{what} holds a value that is not a finite number")
