"""Does a feature net see textures? The metric `texture_auc`: its Gram matrices must tell two pieces of one texture from pieces of two.

    d(x, y) = sum over levels l of |G_l(x)/|G_l(x)| - G_l(y)/|G_l(y)||^2        l: relu1_1, relu2_1, ... , relu5_1

The value is the area under the ROC of -d: the probability that two neighbouring squares of a picture are nearer to each other than two
squares of different pictures. The squares are of 64 px, of paintings and photographs of $CONDGEN_DATA/style_images and deep_photo, brought
to a shorter side of 256 px. No net of the house was trained on them, but the recipe of `features` (crops, colours, steps) was selected on
them: for its nets the value is a little too good. Beside it stands the same net untrained.
"""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from condgen.data.cache import data_folder
from condgen.data.store import to_float
from condgen.errors import BadInput
from condgen.evaluation.measuring import Measured, Measuring
from condgen.networks.features import FeatureNet
from condgen.objectives.perceptual import gram

LEVELS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
SIDE, SHORT = 64, 256
"""Of a square, and of a picture's shorter side, in px."""
EACH = 6
"""Pairs of squares from each picture."""
FOLDERS = {"style_images": ("*.webp",), "deep_photo": ("in[0-9]*.webp", "tar[0-9]*.webp")}
SAME = ("starry_night_crop", "starry_night_google")
"""Pictures of a painting that is there already; files that are there already are left out by their sums."""


class Pairs(NamedTuple):
    """Neighbouring squares a and b, (n, 3, 64, 64) each, and the picture (n,) that both are of."""

    a: Tensor
    b: Tensor
    picture: Tensor


def texture_auc(m: Measuring) -> Measured:
    """Of the model's feature net. Raises BadInput for a model that has none, and where the pictures are missing."""
    models: list[Any] = [m.model, m.untrained]
    if not hasattr(m.model, "feature_net"):
        raise BadInput(f"{type(m.model).__name__} has no feature net; texture_auc is for `features-...` runs")
    pairs = pairs_of(held_out(), m.seed)
    ours, control = (auc(model.feature_net().to(m.model.device), pairs) for model in models)
    about = f"texture_auc|cosine of Grams at {len(LEVELS)} levels|{len(pairs.a)} pairs of {SIDE} px squares"
    about += f" in {int(pairs.picture.max()) + 1} pictures|v2|recipe and steps of `features` selected on these pictures"
    about += "|ceiling=1 by definition|control=untrained model"
    return Measured(ours, 1.0, control, len(pairs.a), about)


def auc(net: FeatureNet, pairs: Pairs) -> float:
    """How often two neighbours are nearer to each other than two squares of different pictures, by all such comparisons."""
    near = torch.stack([distances(net, pairs, level) for level in LEVELS]).sum(0)
    same, other = near.diagonal().contiguous(), near[pairs.picture[:, None] != pairs.picture[None]].sort().values
    below, upto = torch.searchsorted(other, same), torch.searchsorted(other, same, right=True)
    return float(1 - (below + upto).double().mean() / (2 * len(other)))


@torch.no_grad()
def distances(net: FeatureNet, pairs: Pairs, level: str, chunk: int = 16) -> Tensor:
    """Squared distances (n, n) of every a to every b at one level, float64. Gram matrices of a are held, of b a few at a time."""
    held = torch.cat([directions(net, some, level) for some in pairs.a.split(chunk)])
    products = [held @ directions(net, some, level).T for some in pairs.b.split(chunk)]
    return 2 - 2 * torch.cat(products, 1).double()


def directions(net: FeatureNet, x: Tensor, level: str) -> Tensor:
    """The Gram matrices of pictures (n, 3, h, w) at one level, each brought to length 1: float32 (n, d) on the CPU."""
    seen = net(x.to(next(net.parameters()).device), (level,))[level]
    return torch.nn.functional.normalize(gram(seen).flatten(1), dim=1).cpu()


def pairs_of(pictures: Sequence[Tensor], seed: int = 0, each: int = EACH, side: int = SIDE) -> Pairs:
    """Neighbouring squares, one beside or above the other, anywhere in pictures (3, h, w); as many of each picture."""
    generator = torch.Generator().manual_seed(seed)
    found: list[tuple[Tensor, Tensor]] = []
    for picture in pictures:
        for _ in range(each):
            lying = bool(torch.rand((), generator=generator) < 0.5)
            h, w = (side, 2 * side) if lying else (2 * side, side)
            y, x = (int(torch.randint(n - need + 1, (), generator=generator)) for n, need in zip(picture.shape[1:], (h, w), strict=True))
            found.append(tuple(picture[:, y : y + h, x : x + w].chunk(2, 2 if lying else 1)))  # type: ignore[arg-type]
    a, b = (torch.stack(list(half)) for half in zip(*found, strict=True))
    return Pairs(a, b, torch.arange(len(pictures)).repeat_interleave(each))


def held_out() -> list[Tensor]:
    """The pictures, (3, h, w) in [-1, 1]. Raises BadInput where none is here."""
    root = data_folder() or Path("$CONDGEN_DATA")
    files = [f for folder, kinds in FOLDERS.items() for kind in kinds for f in sorted((root / folder).glob(kind)) if f.stem not in SAME]
    files = distinct(f for f in files if not f.stem.endswith("_seg"))
    if len(files) < 2:
        raise BadInput(f"texture_auc is measured on pictures of {' and '.join(str(root / f) for f in FOLDERS)}; there are {len(files)}")
    return [_read(f) for f in files]


def distinct(files: Iterable[Path]) -> list[Path]:
    """The first of each that are equal byte for byte, in order: pairs of two of them would count as different pictures."""
    by_sum: dict[bytes, Path] = {}
    for file in files:
        by_sum.setdefault(hashlib.sha256(file.read_bytes()).digest(), file)
    return list(by_sum.values())


def _read(file: Path) -> Tensor:
    from PIL import Image

    picture = Image.open(file).convert("RGB")
    scale = SHORT / min(picture.size)
    sides = [max(SHORT, round(n * scale)) for n in picture.size]
    return to_float(np.array(picture.resize((sides[0], sides[1]), Image.Resampling.LANCZOS))[None])[0]
