"""Faces of Labeled Faces in the Wild (Huang et al. 2007), with what is known of each. For research use.

`lfwcrop32` are LFWcrop's pixels at 32 px, those of Gauthier's experiments; `lfw64` a close crop of the deep-funneled pictures at
64 px. Both have the same rows in the same order, and two conditions:

- `face`: 40 named attributes (smiling, male, ...), the probabilities that a classifier gave to each, in [0, 1];
- `look`: 30 numbers, the singular vectors of the 73 attributes of Kumar et al. 2009, as Gauthier used them: not normalised.

`lfw64-landmarks` are the pictures of `lfw64` with a third: `landmarks`, 68 key points as a net placed them (not people). They belong to the
deep-funneled pictures; LFWcrop's are aligned otherwise, so `lfwcrop32` has none. At `size=32` each pixel is the mean of four.

Split as in Gauthier's lists (by picture: people overlap), or, for the sets named `-identity`, by person.
"""

import hashlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from condgen.conditions import Attributes, Keypoints, Schema, Vector
from condgen.data.cache import data_folder
from condgen.data.store import Content
from condgen.errors import BadInput

SPLITS = ("train", "validation", "test")
HELD_OUT = 0.0455
"""Share of the people in each of validation and test, where people do not overlap: about as many pictures as in Gauthier's."""
REGIONS = {"jaw": 17, "right_brow": 5, "left_brow": 5, "nose": 9, "right_eye": 6, "left_eye": 6, "mouth": 20}
"""Points of each part of the face, in the order of the 68-point convention (300-W); right and left are the person's own."""
LANDMARKS = Keypoints(tuple(f"{part}_{i}" for part, count in REGIONS.items() for i in range(count)))


def small(into: Path) -> dict[str, Content]:
    """LFWcrop, 32 px, Gauthier's split: 11,768, 557 and 562 pictures (3, 32, 32)."""
    return _contents(_crop32, by_person=False)


def large(into: Path) -> dict[str, Content]:
    """The same rows at 64 px."""
    return _contents(_funneled64, by_person=False)


def small_by_person(into: Path) -> dict[str, Content]:
    return _contents(_crop32, by_person=True)


def large_by_person(into: Path) -> dict[str, Content]:
    return _contents(_funneled64, by_person=True)


def large_with_landmarks(into: Path, size: int | None = None) -> dict[str, Content]:
    """The rows of `lfw64` with the condition `landmarks`, at 64 px or averaged to `size`. Raises BadInput for sizes but 32, 16, 8."""
    side = 64 if size is None else size
    if side < 8 or 64 % side:
        raise BadInput(f"lfw64-landmarks is 64 px and is averaged to 32, 16 or 8; size is {size}")
    found = _contents(lambda: _averaged(_funneled64(), 64 // side), by_person=False, landmarks=True)
    return {name: _with_points_in_place(name, content) for name, content in found.items()}


def _contents(pictures: Callable[[], np.ndarray], by_person: bool, landmarks: bool = False) -> dict[str, Content]:
    with np.load(_file("lfw64/meta.npz"), allow_pickle=False) as meta:
        known = meta["has_facer"] & meta["has_kumar"]
        split = _by_person(meta["names"]) if by_person else meta["gauthier_split"]
        face = torch.from_numpy(meta["facer_attr_u8"].astype(np.float32) / 255)
        look = torch.from_numpy(meta["kumar_pca30"].astype(np.float32))
        schema: Schema = {"face": Attributes(tuple(str(k).lower() for k in meta["facer_keys"])), "look": Vector(look.shape[1])}
        columns = {"face": face, "look": look}
        if landmarks:
            schema["landmarks"], columns["landmarks"] = LANDMARKS, _seen(torch.from_numpy(meta["landmarks68"].astype(np.float32)))
    x, found = pictures(), {}
    for k, name in enumerate(SPLITS):
        rows = np.flatnonzero(known & (split == k))
        left_out = int(((split == k) & ~known).sum())
        notes = [f"{left_out} pictures of {name} have no attributes and are left out"]
        at = torch.from_numpy(rows)
        found[name] = Content(x[rows], {column: values[at] for column, values in columns.items()}, schema, notes)
    return found


def _seen(xy: Tensor) -> Tensor:
    """Points (n, k, 2) as values of `Keypoints`, all visible: the net places each, even one that hair or the border hides."""
    return torch.cat([xy, torch.ones_like(xy[..., :1])], 2)


def _with_points_in_place(split: str, content: Content) -> Content:
    """Without the rows whose points were not found: not finite, or further outside the picture than `Keypoints` allow."""
    points = content.columns["landmarks"]
    assert isinstance(points, Tensor)
    found = torch.isfinite(points).all(2).all(1) & (points[..., :2] - 0.5).abs().le(1).all(2).all(1)
    if bool(found.all()):
        return content
    notes = [*content.notes, f"{int((~found).sum())} pictures of {split} have no key points and are left out"]
    return Content(content.samples[found.numpy()], {k: v[found] for k, v in content.columns.items()}, content.schema, notes)


def _averaged(pictures: np.ndarray, by: int) -> np.ndarray:
    """uint8 (n, h, w, 3) to (n, h / by, w / by, 3): each pixel the rounded mean of by x by."""
    n, h, w, c = pictures.shape
    blocks = pictures.reshape(n, h // by, by, w // by, by, c)
    return pictures if by == 1 else np.stack([some.astype(np.float32).mean((1, 3)).round().astype(np.uint8) for some in blocks])


def _by_person(names: np.ndarray) -> np.ndarray:
    """0, 1 or 2 for each picture, by a hash of the person's name."""
    people = [str(name).rpartition("_")[0] for name in names]
    u = np.array([int.from_bytes(hashlib.sha256(person.encode()).digest()[:4]) / 2**32 for person in people])
    return np.where(u < HELD_OUT, 1, np.where(u < 2 * HELD_OUT, 2, 0))


def _crop32() -> np.ndarray:
    with np.load(_file("lfwcrop32/images32.npz"), allow_pickle=False) as file:
        return file["x"]


def _funneled64() -> np.ndarray:
    from PIL import Image

    with np.load(_file("lfw64/images64.npz"), allow_pickle=False) as file:
        codes, offsets = file["codes"], file["offsets"]
    pictures = [Image.open(io.BytesIO(codes[a:b].tobytes())).convert("RGB") for a, b in zip(offsets, offsets[1:], strict=False)]
    return np.stack([np.asarray(picture) for picture in pictures])


def _file(name: str) -> Path:
    """A file below $CONDGEN_DATA. Raises BadInput where it is not there: LFW has no address that could be fetched in this form."""
    root = data_folder()
    if root is None or not (root / name).is_file():
        wanted = (root or Path("$CONDGEN_DATA")) / name
        raise BadInput(
            f"{wanted} is missing; the faces are not embedded and cannot be downloaded in this form (docs/data.md says how they are made)"
        )
    return root / name
