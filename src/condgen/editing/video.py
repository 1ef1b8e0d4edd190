"""Style transfer of a clip: frames in the style of a picture that stay what they were from one to the next.

    alpha L_content(p_i) + beta L_style(a) + gamma sum_j L_temporal(x_i, w_j, c_j)
    L_temporal(x, w, c) = 1/D sum_k c_k (x_k - w_k)^2

w_j is the finished frame i - j, warped into frame i; c_j is how far that flow can be trusted; D counts the entries of x. Each frame
starts from the warped previous one. Ruder, Dosovitskiy & Brox 2016, arXiv 1604.08610. Pixels are in [-1, 1], where the paper's are in
[0, 255], and the other terms those of `transfer`, so that its gamma is not this one.

After a cut, where no flow can be trusted, a frame begins anew. A frame depends on finished frames alone: with a work folder these are kept
exactly, and the same call goes on where it was stopped.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from condgen import __version__
from condgen.data.store import to_float
from condgen.data.video import MAX_BYTES
from condgen.data.video import frames as decoded
from condgen.editing.coarse import of_area, resized
from condgen.editing.descent import Descent, Moment
from condgen.editing.flow import FLOWS, long_term, reliability, warp
from condgen.editing.shelf import Shelf, sum_of
from condgen.editing.stylize import remembered, roomy
from condgen.editing.transfer import MEASURES, Recipe, Transfer
from condgen.errors import BadInput, require_range, require_whole, unknown
from condgen.networks.features import FeatureNet
from condgen.networks.features import sum_of as sum_of_weights

Between = Callable[[int, int], Tensor]
"""between(i, j): the flow (1, 2, h, w) from frame i to frame j."""
Watch = Callable[[int, int, Moment], None]
"""watch(pass, frame, moment), after each evaluation."""

LONGEST_PX = 256
"""Of a frame's longer side, by default: about five seconds a frame on one core."""
STARTS = ("random", "same seed", "previous", "warped")
CUT = 0.25
"""Mean reliability below which two frames show different scenes: .00 to .19 across cuts, .46 and more in a row (three films at 160 px)."""
WINDOW = 50
"""Evaluations over which a frame must gain, else it is finished."""


@dataclass(frozen=True)
class Settings:
    """How the frames of a clip hold together.

    Args:
        start: what a frame starts from: "random" and "same seed" noise, the "previous" finished frame, or that one "warped" into its place.
        temporal: gamma, the weight of what the flow brings from finished frames, beside a content of weight 1 in the recipe "relative";
            other recipes' numbers are of other sizes, and it is scaled to them (`unit`). 0 for none.
        offsets: j of the frames that are looked back to, rising from 1. More than one holds what was hidden for a while to its last look.
        passes: over the clip; with several, forwards and backwards in turn, each frame starting from itself blended with its neighbour.
        first: evaluations for the first frame of a single pass; None for the recipe's.
        steps: evaluations for each other frame; with several passes for each frame in each pass.
        settled: a frame is finished where the energy fell by less than this share in 50 evaluations.
        soft: whether weights are blurred beside disocclusions.
        boundaries: whether edges of motion are left out of the temporal term.
        flow: a key of FLOWS.
        seed: of all noise.

    Raises:
        BadInput: for an unknown name, or a number out of range.
    """

    start: str = "warped"
    temporal: float = 10.0
    offsets: tuple[int, ...] = (1,)
    passes: int = 1
    first: int | None = None
    steps: int = 80
    settled: float = 1e-4
    soft: bool = True
    boundaries: bool = True
    flow: str = "dis"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.start not in STARTS:
            raise unknown("start", self.start, STARTS)
        if self.flow not in FLOWS:
            raise unknown("flow", self.flow, FLOWS)
        require_range(0, float("inf"), temporal=self.temporal, settled=self.settled)
        for name in ("passes", "steps"):
            require_whole(name, getattr(self, name), 1)
        if self.first is not None:
            require_whole("first", self.first, 1)
        whole = all(isinstance(j, int) and j > 0 for j in self.offsets)
        if not self.offsets or not whole or sorted(set(self.offsets)) != list(self.offsets) or self.offsets[0] != 1:
            raise BadInput(f"offsets are {self.offsets!r}; expected rising whole numbers that begin with 1, such as (1, 2, 4)")


VARIANTS = {
    "random": Settings(start="random", temporal=0.0),
    "same seed": Settings(start="same seed", temporal=0.0),
    "previous": Settings(start="previous", temporal=0.0),
    "warped": Settings(start="warped", temporal=0.0),
    "temporal": Settings(),
    "long-term": Settings(offsets=(1, 2, 4, 8)),
    "multi-pass": Settings(passes=5, steps=40, temporal=5.0),
}
"""By name, each with what the one before it lacks; those without a temporal term are there to compare with."""


def read_frames(path: str | Path, longest: int = LONGEST_PX, start: int = 0, stop: int | None = None) -> Iterator[Tensor]:
    """A clip's frames (1, 3, h, w) in [-1, 1], one at a time, the longer side at most so many px and both sides even, as an mp4 has them.

    Raises BadInput as `data.video.frames` does.
    """
    require_whole("the longer side", longest, 16)
    for frame in decoded(path, start, stop):
        h, w = frame.shape[:2]
        scale = min(1.0, longest / max(h, w))
        yield resized(to_float(frame[None]), [max(2, 2 * round(n * scale / 2)) for n in (h, w)]).clamp(-1, 1)


def stylize_clip(
    net: FeatureNet,
    recipe: Recipe,
    frames: Iterable[Tensor],
    styles: Sequence[Tensor],
    settings: Settings = VARIANTS["temporal"],
    work: Path | None = None,
    between: Between | None = None,
    watch: Watch | None = None,
    shares: Sequence[float] | None = None,
) -> Iterator[Tensor]:
    """Finished frames (1, 3, h, w) in [-1, 1], in order.

    A single pass holds as many frames as it looks back to, however long the clip is. Several passes hold the clip, and give its first frame
    when the last pass reaches it. What the net and the descent hold of a large frame is bounded as it is for a picture.

    Args:
        net: the eyes.
        recipe: of each frame; its `steps` are the first frame's.
        frames: (1, 3, h, w) in [-1, 1], all of one size; read once.
        styles: pictures (1, 3, h', w'); they are brought to the area of a frame.
        settings: of the clip.
        work: a folder for finished frames, 12 bytes a pixel each, of several passes those of two; other calls of other pictures, nets or
            settings may use the same. It is the caller's to remove.
        between: exact flows, where they are known; None for `settings.flow`.
        watch: is told of every evaluation.
        shares: of each style; equal by default.

    Raises:
        BadInput: for no frames, frames of several sizes or of more pixels than `stylize.MOST_PIXELS`, several passes over more than
            `MAX_BYTES`, or what `Transfer` and the flow refuse.
    """
    eyes = [net.id, sum_of_weights(net.state_dict()) if work else None]
    identity = [__version__, eyes, asdict(recipe), asdict(settings), between is None, [sum_of(s) for s in styles], shares]
    job = _Job(net, recipe, styles, shares, settings, Shelf(work, identity), between, watch)
    return job.many(frames) if settings.passes > 1 else job.one(frames)


def temporal_loss(x: Tensor, ties: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """sum_j 1/D sum_k c_k (x_k - w_k)^2 over ties (w_j, c_j), where c (1, 1, h, w) counts for each channel alike. ()."""
    return torch.stack([(c * (x - w).square()).mean() for w, c in ties]).sum()


def temporal_error(x: Tensor, before: Tensor, backward: Tensor, c: Tensor) -> float:
    """Mean squared difference of a frame and the warped frame before it, of pictures in [0, 1], over the pixels that can be trusted.

    Ruder et al.'s short-term consistency error, which they measure with exact flow.

    Args:
        x, before: (1, 3, h, w) in [-1, 1].
        backward: flow (1, 2, h, w) from x to `before`.
        c: weights (1, 1, h, w); nan where all are 0.
    """
    gaps = (x - warp(before, backward)).square().mean(1, keepdim=True) / 4
    return float((c * gaps).sum() / c.sum())


# --- the work -------------------------------------------------------------------------------------------------------------


@dataclass
class _Job:
    net: FeatureNet
    recipe: Recipe
    styles: Sequence[Tensor]
    shares: Sequence[float] | None
    settings: Settings
    shelf: Shelf
    between: Between | None
    watch: Watch | None
    seen: dict[int, Tensor] = field(default_factory=dict)
    done: dict[int, Tensor] = field(default_factory=dict)
    transfer: Transfer | None = None
    unit: float = 1.0

    # --- one pass ---

    def one(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        reach, count = max(self.settings.offsets), 0
        for i, frame in enumerate(frames):
            self._admit(i, frame)
            self._follow(i, [i - j for j in self.settings.offsets if i >= j])
            self.done[i] = self.shelf.kept("1", i, partial(self._single, i)).to(frame)
            count += 1
            yield self.done[i]
            for old in (self.seen, self.done):
                old.pop(i - reach, None)
        if not count:
            raise BadInput("a clip without frames cannot be stylized")

    def _single(self, i: int) -> Tensor:
        ties = self._ties(i, [i - j for j in self.settings.offsets if i >= j])
        if i == 0 or (self._looks_back and not ties):  # the first frame of all, or after a cut
            start, steps = self._of(i).start("noise", self.settings.seed), self.settings.first or self.recipe.steps
        else:
            start, steps = self._start(i, ties), self.settings.steps
        return self._descend(1, i, start, ties, self.settings.temporal, steps)

    def _start(self, i: int, ties: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """What frame i starts from; warped, what was hidden in the previous frame comes from where it was last seen."""
        how = self.settings.start
        if how in ("random", "same seed"):
            return self._of(i).start("noise", self.settings.seed + (i if how == "random" else 0))
        if how == "previous":
            return self.done[i - 1].clone()
        rest = 1 - torch.stack([c for _, c in ties]).sum(0)
        return rest * ties[0][0] + torch.stack([c * w for w, c in ties]).sum(0)

    # --- several passes ---

    def many(self, frames: Iterable[Tensor]) -> Iterator[Tensor]:
        n, passes = self._gather(frames), self.settings.passes
        kept = self._kept_pass(n)
        for number in range(kept + 1, passes + 1):
            ahead = number % 2 == 1
            for i in range(n) if ahead else reversed(range(n)):
                self.done[i] = self.shelf.kept(str(number), i, partial(self._revisit, number, i)).to(self.seen[i])
                if ahead and number == passes:
                    yield self.done[i]
            self.shelf.drop(str(number - 1), n)
        if kept == passes or not passes % 2:
            yield from (self.done[i] for i in range(n))

    def _gather(self, frames: Iterable[Tensor]) -> int:
        """How many they are; all are held, and what is painted on them will be."""
        n = 0
        for n, frame in enumerate(frames, 1):
            self._admit(n - 1, frame)
            self._follow(n - 1, [n - 2] if n > 1 else [])
            if (one := 2 * frame.numel() * frame.element_size()) * n > MAX_BYTES:
                size = f"{frame.shape[3]}x{frame.shape[2]} px"
                most = f"at most {MAX_BYTES // one} frames of {size}, which take {MAX_BYTES / 2**30:g} GiB"
                raise BadInput(f"several passes hold the whole clip: {most}; make them smaller, take a part, or a single pass")
        if not n:
            raise BadInput("a clip without frames cannot be stylized")
        return n

    def _kept_pass(self, n: int) -> int:
        """The last pass whose n frames are all kept, which are taken; 0 for none. No later pass needs those before it."""
        for number in reversed(range(1, self.settings.passes + 1)):
            if found := self.shelf.whole(str(number), n):
                self.done = {i: x.to(self.seen[i]) for i, x in enumerate(found)}
                return number
        return 0

    def _revisit(self, number: int, i: int) -> Tensor:
        """Pass `number` over frame i: the first from noise, the later from the frame blended with the neighbour just visited."""
        if number == 1:
            start, ties = self._of(i).start("noise", self.settings.seed + i), []
        else:
            near = i - 1 if number % 2 else i + 1
            ties = self._ties(i, [near] if near in self.seen else [])
            start = blended(self.done[i], ties)
        # The temporal term comes in half-way, as in the released code: pass 8 of 15.
        gamma = self.settings.temporal if number >= (self.settings.passes + 1) // 2 else 0.0
        return self._descend(number, i, start, ties, gamma, self.settings.steps)

    # --- one frame ---

    def _admit(self, i: int, frame: Tensor) -> None:
        if frame.dim() != 4 or frame.shape[:2] != (1, 3):
            raise BadInput(f"frame {i} is {tuple(frame.shape)}; expected (1, 3, h, w)")
        if (first := next(iter(self.seen.values()), frame)).shape != frame.shape:
            raise BadInput(f"frame {i} is {tuple(frame.shape)}, those before it {tuple(first.shape)}; a clip has one size")
        self.seen[i] = frame
        if self.transfer is None:  # also where frame 0 is finished: what is measured on it must not depend on where a call goes on
            styles = [resized(s, of_area(s, frame[0, 0].numel())) for s in self.styles]
            self.transfer = Transfer(roomy(self.net, self.recipe, frame), self.recipe, frame, styles, self.shares)
            self.unit = unit(self.transfer)

    def _follow(self, i: int, others: Sequence[int]) -> None:
        """What is kept from frame i on depends on it, and on exact flows, since their name would say nothing of them."""
        self.shelf.follow(self.seen[i])
        if self.between is not None and self.shelf.root is not None:
            for j in others:
                self.shelf.follow(self.between(i, j))
                self.shelf.follow(self.between(j, i))

    def _of(self, i: int) -> Transfer:
        """The energy of frame i; the style's statistics are measured once."""
        assert self.transfer is not None
        if self.transfer.content is not self.seen[i]:
            self.transfer = towards(self.transfer, self.seen[i])
        return self.transfer

    @property
    def _looks_back(self) -> bool:
        return self.settings.start == "warped" or self.settings.temporal > 0

    def _ties(self, i: int, others: Sequence[int]) -> list[tuple[Tensor, Tensor]]:
        """Finished frames warped into frame i, each with its weights, the nearest first; without those of another scene."""
        if not self._looks_back:
            return []
        found = [(j, back, self._trust(i, j, back)) for j in others for back in [self._flow(i, j)]]
        found = [(j, back, c) for j, back, c in found if float(c.mean()) >= CUT]
        trust = long_term([c for _, _, c in found]) if found else []
        return [(warp(self.done[j], back), c) for (j, back, _), c in zip(found, trust, strict=True)]

    def _trust(self, i: int, j: int, back: Tensor) -> Tensor:
        return reliability(back, self._flow(j, i), self.settings.soft, self.settings.boundaries)

    def _flow(self, i: int, j: int) -> Tensor:
        if self.between is not None:
            return self.between(i, j)
        return FLOWS[self.settings.flow](self.seen[i], self.seen[j]).to(self.seen[i])

    def _descend(self, number: int, i: int, start: Tensor, ties: Sequence[tuple[Tensor, Tensor]], gamma: float, steps: int) -> Tensor:
        transfer, recipe, totals = self._of(i), self.recipe, []

        def energy(x: Tensor) -> dict[str, Tensor]:
            terms = transfer.energy(x)
            return terms | {"temporal": gamma * self.unit * temporal_loss(x, ties)} if ties and gamma else terms

        x = start
        for moment in Descent(start, energy, steps, recipe.optimizer, recipe.lr, remembered(recipe.history, start)):
            x = moment.x
            totals.append(moment.total)
            if self.watch:
                self.watch(number, i, moment)
            if settled(totals, self.settings.settled):
                break
        return x.clamp(-1, 1)


@torch.no_grad()
def unit(transfer: Transfer) -> float:
    """What a recipe's numbers are to those of "relative" with a content of weight 1, read off the content loss of noise: gamma's unit."""
    x = transfer.start("noise", 0)
    seen = transfer.net(x, transfer.recipe.content_layers)
    own, relative = (float(transfer.content_loss(seen, way)) for way in (None, MEASURES["relative"]))
    return (transfer.recipe.content or 1.0) * own / relative


@torch.no_grad()
def towards(transfer: Transfer, content: Tensor) -> Transfer:
    """The same styles, as they were measured, with another content."""
    other = copy.copy(transfer)
    other.content = content
    other.wanted = other.net(content, other.recipe.content_layers)
    return other


def blended(x: Tensor, ties: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """(x + sum c w) / (1 + sum c): a frame and what its neighbours show of it, each by its weight."""
    total, share = x, torch.ones_like(x[:, :1])
    for w, c in ties:
        total, share = total + c * w, share + c
    return total / share


def settled(totals: Sequence[float], least: float) -> bool:
    """Whether the energy fell by less than this share of itself over the last `WINDOW` evaluations.

    >>> settled([5.0] * 51, 1e-4), settled([5.0] * 50, 1e-4), settled([5.0 - 0.01 * i for i in range(51)], 1e-4)
    (True, False, False)
    """
    return len(totals) > WINDOW and totals[-1 - WINDOW] - totals[-1] < least * abs(totals[-1 - WINDOW])
