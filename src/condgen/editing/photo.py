"""Style transfer that leaves a photograph a photograph.

    1. alpha L_content + beta L_style+               from white noise, a large picture small first
    2. alpha L_content + beta L_style+ + lambda L_m  from the first's picture, smoothed along the photograph
    3. the smooth local affine change of the photograph's colours that is nearest to the second's result

L_style+ takes each class of the content from the same class of the style (`masks`), L_m is the matting Laplacian's (`matting`).
Luan, Paris, Shechtman & Bala, CVPR 2017, arXiv 1703.07511. From noise L_m stalls, and from the content it freezes the old colours:
hence two stages. The paper's lambda of 1e4 belongs to its own scale of the other losses; 1e-2 is for the recipe "relative".

The release hands the first stage's picture over as it is. Here a guided filter carries its colours onto the photograph's detail first
(`local_affine.with_grain`): L-BFGS is slow on L_m, and from there 200 evaluations come lower in the whole energy (.319 for .348 and .699
for .868 on the authors' sets 1 and 5 at 192 px), with more of the photograph's edges.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condgen.editing.coarse import masks_at, of_area, resized
from condgen.editing.descent import Descent, Moment
from condgen.editing.local_affine import smooth_local_affine, with_grain
from condgen.editing.masks import clustered, read_masks
from condgen.editing.matting import laplacian, photorealism
from condgen.editing.stylize import Plan, Stylization, remembered
from condgen.editing.tiles import Net
from condgen.editing.transfer import RECIPES, Masks, Recipe, Transfer
from condgen.errors import BadInput, require_range, require_whole

WEIGHT = 1e-2
"""lambda, beside relative losses of order 0.1 to 1 and pixels in [0, 1]."""
FROM_NOISE = Plan(RECIPES["relative"], start="noise")
"""How the first stage is painted: rougher than a painting, for the second stage and the filter smooth it along the photograph."""
MOST_PIXELS = 4_000_000
"""The Laplacian takes 0.9 kB a pixel while it is made, and keeps a third of that."""


class Photo:
    """A photograph under way. Iterating goes on from where it stands, over both stages.

    Args:
        net: the eyes, such as `backbones.feature_net()` gives.
        content: the photograph (1, 3, h, w) in [-1, 1].
        styles: pictures (1, 3, h', w') in [-1, 1], of any size; they are brought to the content's area.
        masks: classes of all of them, of their sizes; None to take the style from everywhere.
        plan: of the first stage, by default `FROM_NOISE`; the second descends the same recipe.
        weight: lambda; `WEIGHT` by default, where losses are relative.
        steps: evaluations of the second stage; the recipe's by default.
        eps: of the Laplacian.
        shares: of each style; equal by default.

    Raises:
        BadInput: for pictures, masks or numbers that do not fit, for a plan that keeps the photograph's colours, and for a recipe of other
            losses without a weight.
    """

    def __init__(
        self,
        net: Net,
        content: Tensor,
        styles: Sequence[Tensor],
        masks: Masks | None = None,
        plan: Plan | None = None,
        weight: float | None = None,
        steps: int | None = None,
        eps: float = 1e-7,
        shares: Sequence[float] | None = None,
    ):
        plan = plan or FROM_NOISE
        weight = weight_for(plan.recipe, weight)
        require_whole("steps", plan.recipe.steps if steps is None else steps, 1)
        if plan.colours != "style":
            raise BadInput(f"colours are {plan.colours!r}; a photograph's transfer is one of colours: expected 'style'")
        if (pixels := content.shape[-2:].numel()) > MOST_PIXELS:
            raise BadInput(f"the photograph has {pixels / 1e6:.1f} megapixels; expected at most {MOST_PIXELS / 1e6:g}")
        self.content, self.recipe, self.weight = content, plan.recipe, weight
        self.first = Stylization(net, content, styles, plan, shares, masks)
        self.counts = (self.first.steps, plan.recipe.steps if steps is None else steps)
        area = content.shape[-2:].numel() * plan.style_scale**2
        seen = [resized(s, of_area(s, area)) for s in styles]
        self.transfer = Transfer(self.first.net, plan.recipe, content, seen, shares, masks_at(masks, content, seen))
        self.laplacian = laplacian(content, eps)
        self.second: Descent | None = None
        self._filtered: tuple[Tensor, Tensor] | None = None  # the best picture and what the filter made of it

    @property
    def steps(self) -> int:
        """Evaluations in all, of both stages."""
        return sum(self.counts)

    @property
    def step(self) -> int:
        """Evaluations made."""
        return self.first.step if self.second is None else self.counts[0] + self.second.step

    def energy(self, x: Tensor) -> dict[str, Tensor]:
        """The weighted terms of the second stage, () each."""
        return self.transfer.energy(x) | {"photorealism": self.weight * photorealism(x, self.laplacian)}

    def begin_second(self, first: Tensor) -> Descent:
        """The second stage anew, from a picture (1, 3, h, w) of the first."""
        recipe, x = self.recipe, with_grain(first.detach().clamp(-1, 1), self.content)
        self.second = Descent(x, self.energy, self.counts[1], recipe.optimizer, recipe.lr, remembered(recipe.history, x))
        return self.second

    def __iter__(self) -> Iterator[Moment]:
        """One moment for each evaluation; its step counts through both stages."""
        if self.second is None:
            yield from self.first
        second = self.second or self.begin_second(self.first.descent.best)
        while second.step < second.steps:
            yield replace(second.advance(), step=self.counts[0] + second.step)

    def picture(self, filtered: bool = True, grain: bool = False) -> Tensor:
        """The best picture of the second stage, or the first's as it stands, (1, 3, h, w) in [-1, 1].

        Args:
            filtered: whether the smooth local affine filter follows the second stage.
            grain: whether the photograph's fine detail is then put in place of the result's, against posterisation.
        """
        if self.second is None:
            return self.first.picture()
        x = self._smooth(self.second.best) if filtered else self.second.best.detach().clamp(-1, 1)
        return with_grain(x, self.content) if grain else x

    def _smooth(self, best: Tensor) -> Tensor:
        """The filtered picture, kept: the filter takes seconds."""
        if self._filtered is None or not torch.equal(self._filtered[0], best):
            self._filtered = best.detach().clone(), smooth_local_affine(best.detach().clamp(-1, 1), self.content)
        return self._filtered[1]

    def measures(self) -> dict[str, float]:
        """ "content" and "style" of `picture()`, as `Transfer.measures` has them, and "photorealism", which is L_m."""
        x = self.picture()
        return self.transfer.measures(x) | {"photorealism": float(photorealism(x, self.laplacian))}

    # --- resuming ---

    def state(self) -> dict[str, Tensor]:
        """All that the next steps depend on, in plain tensors."""
        if self.second is None:
            return self.first.state() | {"stage": torch.tensor(1)}
        return {f"descent.{k}": v for k, v in self.second.state().items()} | {"stage": torch.tensor(2)}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from `state()`, to the same numbers as if never stopped. Raises BadInput where it is of another picture."""
        stage = int(state.get("stage", torch.tensor(0)))
        if stage not in (1, 2):
            raise BadInput("the state is damaged, or not of a photograph's transfer: it names no stage")
        if stage == 1:
            self.second = None
            self.first.restore(state)
        else:
            own = {k.removeprefix("descent."): v for k, v in state.items() if k.startswith("descent.")}
            self.begin_second(self.content).restore(own)


def weight_for(recipe: Recipe, weight: float | None) -> float:
    """lambda. Raises BadInput for one out of range, and for none beside losses that `WEIGHT` was not chosen for."""
    if weight is None and recipe.measure != RECIPES["relative"].measure:
        raise BadInput(
            f"the losses of this recipe are {recipe.measure!r}, and the weight of photorealism is known beside relative ones: give a "
            f"weight (--photo-weight; {WEIGHT:g} is for the recipe 'relative')"
        )
    weight = WEIGHT if weight is None else weight
    require_range(0, float("inf"), weight=weight)
    return weight


def photo_style(
    net: Net,
    content: Tensor,
    styles: Sequence[Tensor],
    masks: Path | None = None,
    style_masks: Sequence[Path] = (),
    clusters: int | None = None,
    plan: Plan | None = None,
    **options: Any,
) -> tuple[Photo, list[str]]:
    """What `condgen stylize --photo` runs, before its first step, and notes on its classes, a sentence each.

    Args:
        net, content, styles, plan: as for `Photo`.
        masks: a picture of flat colours, or a folder of one picture a class, for the content.
        style_masks: the same for each style.
        clusters: so many classes are found by clustering instead.
        options: others of `Photo`.

    Raises:
        BadInput: for masks of one side alone, masks and clusters at once, and for what `Photo` refuses.
    """
    if (masks is None) != (not style_masks):
        raise BadInput("masks of " + ("the content" if style_masks else "the style") + " are missing: give both or neither")
    if masks is not None and clusters is not None:
        raise BadInput(f"masks are given, and {clusters} clusters asked for: one of the two")
    plan, found = plan or FROM_NOISE, None
    notes = ["No masks: the style is taken from everywhere, and its colours may land on the wrong things."]
    if masks is not None:
        found, notes = read_masks(content, styles, masks, style_masks)
    elif clusters is not None:
        found, notes = clustered(content, styles, clusters, plan.seed)
    return Photo(net, content, styles, found, plan, **options), notes
