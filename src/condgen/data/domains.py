"""`horse2zebra`: pictures of two domains that nobody has paired. A person's own such set is a folder with trainA and trainB (`table`).

Zhu, Park, Isola & Efros, "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", ICCV 2017, arXiv 1703.10593;
its horses and zebras are from ImageNet, for non-commercial research.
"""

import io
from pathlib import Path

import numpy as np
import torch

from condgen.conditions import Label
from condgen.data.cache import data_folder
from condgen.data.images import decode
from condgen.data.pixels import each
from condgen.data.store import Content
from condgen.data.table import in_turn
from condgen.errors import BadInput

HORSE2ZEBRA = ("horse", "zebra")
FOLDER = "horse2zebra128"
SIZES = (64, 128)


def horse2zebra(into: Path, size: int | None = None) -> dict[str, Content]:
    """Train (1,067 horses, 1,334 zebras) and test (120, 140), shape (3, 128, 128) or (3, 64, 64), condition `domain`; the two in turn.

    Raises BadInput for another size, and where the packs are not in $CONDGEN_DATA.
    """
    side = 128 if size is None else size
    if side not in SIZES:
        raise BadInput(f"horse2zebra is 128 px and is resized to 64; size is {size}")
    return {split: _unpaired([_pack(f"{split}{letter}128.npz", side) for letter in "AB"]) for split in ("train", "test")}


def _unpaired(of_domain: list[list[np.ndarray]]) -> Content:
    rows = in_turn([[(k, picture) for picture in pictures] for k, pictures in enumerate(of_domain)])
    x = np.stack([picture for _, picture in rows])
    return Content(x, {"domain": torch.tensor([k for k, _ in rows])}, {"domain": Label(HORSE2ZEBRA)})


def _pack(name: str, side: int) -> list[np.ndarray]:
    """Pictures uint8 (side, side, 3): encoded ones, one behind the other in `codes`, from `offsets` to `offsets`."""
    with np.load(io.BytesIO(_file(name).read_bytes()), allow_pickle=False) as file:
        codes, offsets = file["codes"], file["offsets"]
    files = [codes[a:b].tobytes() for a, b in zip(offsets, offsets[1:], strict=False)]
    return list(each(lambda content: decode(content, side), files))


def _file(name: str) -> Path:
    root = data_folder()
    path = (root or Path("$CONDGEN_DATA")) / FOLDER / name
    if not path.is_file():
        raise BadInput(f"{path} is missing; with the authors' folders, which hold trainA and trainB, give their folder instead of the name")
    return path
