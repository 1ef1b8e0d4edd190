"""Pictures of any size through a model that translates between domains, in bounded memory.

A convolutional translator takes every size that is a multiple of its stride: a picture is continued by reflection up to the next one,
and cut again. Up to `LARGEST` pixels go through at once. A larger picture goes in tiles, each with a rim that is thrown away, as
wide as the nets' convolutions see; but instance norm sees the whole picture, and a tile of sky would be normalised
as if all were sky. Therefore the norms' means and variances are taken once, layer by layer, from a mosaic of crops that are spread evenly
over the picture, and all tiles use these: tiles then meet without a seam.
"""

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from condgen.data.images import MAX_PIXELS
from condgen.data.store import to_bytes, to_float
from condgen.editing.space import at_rest, require
from condgen.errors import BadInput, unknown
from condgen.model import Model, domain_of

LARGEST = 1024 * 1024
"""Pixels that go through the net at once."""
TILE = 1024
"""Side of a tile in px, its rims included."""
MARGIN = 96
"""Rim in px, at least: more than the published generator of nine blocks sees to any side. Deeper nets get a wider one, see `reach`."""
CROP = 128
"""Side of a piece of the mosaic in px: many small pieces see more of the picture than a few large ones, and came nearer to the whole."""
LEAST = 16
"""Smallest side in px: below it a quarter of the picture is less than the nets' reflections need."""


class Box(NamedTuple):
    """Rows and columns of a picture, ends excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def at(self) -> tuple[slice, slice]:
        """Indices of the last two axes of (b, c, h, w), of the first two of (h, w, c)."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def within(self, outer: "Box") -> "Box":
        """The same place, counted from the corner of a box around it."""
        return Box(self.top - outer.top, self.bottom - outer.top, self.left - outer.left, self.right - outer.left)


class Translator:
    """One direction of a model that translates.

    Args:
        model: has `translate`. Where it says `multiple`, it takes all sides that are multiples of that; else its own shape alone.
        to: name of the domain.

    Raises:
        BadInput: for a model that does not translate, or a domain it does not know, naming the nearest.
    """

    def __init__(self, model: Model, to: str):
        require(model, "translate")
        self.model: Any = model
        self.domain, label = domain_of(model)
        if to not in label.names:
            raise unknown("domain", to, label.names)
        self.to, self.index = to, label.names.index(to)
        self.multiple: int | None = getattr(model, "multiple", None)
        self.margin = max(MARGIN, reach(model))

    def __call__(self, x: Tensor) -> Tensor:
        """Pictures (b, c, h, w) in [-1, 1] drawn in the domain, on the CPU. Raises BadInput for a size or channels it cannot take."""
        if x.dim() != 4 or x.shape[1] != self.model.shape[0]:
            raise BadInput(f"pictures of shape {tuple(x.shape)}; this model takes (b, {self.model.shape[0]}, h, w)")
        self.check(*x.shape[2:])
        out = torch.empty_like(x, dtype=torch.float32, device="cpu")
        at_once = max(1, LARGEST // (x.shape[2] * x.shape[3]))
        for rows in torch.arange(len(x)).split(at_once):
            some = slice(int(rows[0]), int(rows[-1]) + 1)
            for box, part in self._parts(_reader(x[some]), *x.shape[2:]):
                out[(some, slice(None), *box.at)] = part
        return out

    def pixels(self, picture: np.ndarray) -> np.ndarray:
        """The same of one picture, uint8 (h, w, c): of large ones no copy of float is held whole."""
        self.check(*picture.shape[:2])
        out = np.empty_like(picture)
        for box, part in self._parts(lambda box: to_float(np.array(picture[box.at])[None]), *picture.shape[:2]):
            out[box.at] = to_bytes(part)[0]
        return out

    def check(self, h: int, w: int) -> None:
        """Raises BadInput for a picture that the net cannot take."""
        if self.multiple is None and (h, w) != tuple(self.model.shape[1:]):
            raise BadInput(f"a picture of {w}x{h} px; this model takes {self.model.shape[2]}x{self.model.shape[1]} px alone")
        if self.multiple is not None and min(h, w) < max(LEAST, self.multiple):
            raise BadInput(f"a picture of {w}x{h} px; this model takes sides of at least {max(LEAST, self.multiple)} px")
        if h * w > LARGEST and TILE - 2 * self.margin < TILE // 4:
            raise BadInput(
                f"a picture of {w}x{h} px; this model sees {self.margin} px around a pixel, too far for tiles: at most 1 megapixel"
            )
        if h * w > MAX_PIXELS:
            raise BadInput(f"a picture of {w}x{h} px; at most {MAX_PIXELS // 1_000_000} megapixels are translated")

    def _parts(self, read: Callable[[Box], Tensor], h: int, w: int) -> Iterator[tuple[Box, Tensor]]:
        """The translated picture, in boxes that cover it once; `read` gives the pixels of a box."""
        if h * w <= LARGEST:
            yield Box(0, h, 0, w), self._drawn(read(Box(0, h, 0, w)))
            return
        norms = SharedNorms()
        with norms.taken():
            self._drawn(torch.cat([read(box) for box in mosaic(h, w)]))
        for inner, outer in tiles(h, w, self.multiple or 1, self.margin):
            with norms.given():
                part = self._drawn(read(outer))
            yield inner, part[(..., *inner.within(outer).at)]

    def _drawn(self, x: Tensor) -> Tensor:
        h, w = x.shape[2:]
        wide = _continued(x, self.multiple or 1)
        c = {self.domain: torch.full((len(x),), self.index, device=self.model.device)}
        with at_rest(self.model):
            drawn: Tensor = self.model.translate(wide.to(self.model.device), c)
        return drawn[..., :h, :w].float().cpu()


def _reader(x: Tensor) -> Callable[[Box], Tensor]:
    return lambda box: x[(..., *box.at)]


def _continued(x: Tensor, multiple: int) -> Tensor:
    """By reflection to the right and downwards, up to sides that are multiples."""
    right, down = -x.shape[3] % multiple, -x.shape[2] % multiple
    return F.pad(x, (0, right, 0, down), mode="reflect") if right or down else x


# --- tiles ----------------------------------------------------------------------------------------------------------------


def reach(model: nn.Module) -> int:
    """How many px to any side a net of the model sees at most, 0 where it has no convolutions.

    Counted along each child's convolutions as if they stood in a row, so that branches are counted too far and never too near.
    """
    return max((math.ceil(_reach(child)) for child in model.children()), default=0)


def _reach(net: nn.Module) -> float:
    seen, pixel = 0.0, 1.0  # px of the picture: seen so far, and from one place of the layer to the next
    for layer in net.modules():
        if isinstance(layer, nn.ConvTranspose2d):
            pixel /= layer.stride[0]
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            seen += max((k - 1) * d for k, d in zip(layer.kernel_size, layer.dilation, strict=True)) / 2 * pixel
        if isinstance(layer, nn.Conv2d | nn.AvgPool2d | nn.MaxPool2d):
            pixel *= layer.stride[0] if isinstance(layer.stride, tuple) else layer.stride
        if isinstance(layer, nn.Upsample):
            pixel /= float(layer.scale_factor or 1)  # type: ignore[arg-type]
            seen += pixel
    return seen


def tiles(h: int, w: int, multiple: int, margin: int | None = None) -> Iterator[tuple[Box, Box]]:
    """Boxes that cover (h, w) once, each with the box around it that is translated; corners lie on multiples.

    Args:
        h, w: of the picture.
        multiple: of sides.
        margin: px around a box, `MARGIN` where none is given.

    >>> len(list(tiles(1500, 2000, 4))), next(tiles(1500, 2000, 4))[1]
    (6, Box(top=0, bottom=844, left=0, right=760))
    """
    margin = MARGIN if margin is None else margin
    rim = -(-margin // multiple) * multiple  # so that the nets' strides fall on the same pixels as in the whole picture
    for top, bottom in _cuts(h, multiple, rim):
        for left, right in _cuts(w, multiple, rim):
            outer = Box(max(0, top - rim), min(h, bottom + margin), max(0, left - rim), min(w, right + margin))
            yield Box(top, bottom, left, right), outer


def _cuts(side: int, multiple: int, rim: int) -> Iterator[tuple[int, int]]:
    """About equal pieces of a side, as long as a tile less its rims at most."""
    many = -(-side // (TILE - 2 * rim - multiple))
    places = [i * side // many // multiple * multiple for i in range(many)] + [side]
    yield from zip(places, places[1:], strict=False)


def mosaic(h: int, w: int) -> list[Box]:
    """Crops of one size, about `LARGEST` px in all, spread evenly over (h, w) from border to border."""
    height, width = min(CROP, h), min(CROP, w)
    many = LARGEST // (height * width)
    rows = min(many, max(1, round((many * h / w) ** 0.5)))
    tops, lefts = (_spread(side - piece, n) for side, piece, n in ((h, height, rows), (w, width, many // rows)))
    return [Box(top, top + height, left, left + width) for top in tops for left in lefts]


def _spread(last: int, n: int) -> list[int]:
    return sorted({round(last * (i + 0.5) / n) if n == 1 else round(last * i / (n - 1)) for i in range(n)})


class SharedNorms(TorchFunctionMode):
    """Instance norms, of modules and of functions, that all use one set of means and variances.

    Within `taken` they are those of the batch, its pictures together, and are kept in the order of the calls; within `given` the kept ones
    are used, in the same order. Norms that keep no statistics of a picture are left as they are.
    """

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[tuple[Tensor, Tensor]] = []
        self.at: int | None = None

    @contextlib.contextmanager
    def taken(self) -> Iterator[None]:
        self.kept, self.at = [], None
        with self:
            yield

    @contextlib.contextmanager
    def given(self) -> Iterator[None]:
        self.at = 0
        with self:
            yield

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        if func is F.instance_norm:
            return self._norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))

    def _norm(
        self,
        input: Tensor,  # named as torch does, for those who call it so
        running_mean: Tensor | None = None,
        running_var: Tensor | None = None,
        weight: Tensor | None = None,
        bias: Tensor | None = None,
        use_input_stats: bool = True,
        momentum: float = 0.1,
        eps: float = 1e-5,
    ) -> Tensor:
        if not use_input_stats:
            return F.instance_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
        if self.at is None:
            variance, mean = torch.var_mean(input.float(), (0, 2, 3), correction=0)
            self.kept.append((mean, variance))
        else:
            mean, variance = self.kept[self.at]
            self.at += 1
        return F.batch_norm(input, mean.to(input.dtype), variance.to(input.dtype), weight, bias, False, 0.0, eps)
