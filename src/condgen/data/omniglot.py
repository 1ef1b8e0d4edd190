"""`omniglot`: handwritten characters of many alphabets, 20 drawings of each, and the 20 runs of one-shot classification.

Lake, Salakhutdinov & Tenenbaum, "Human-level concept learning through probabilistic program induction", Science 350, 2015; MIT.
Of the two small background sets, those characters of the second that the first lacks are the test: nobody saw them in training.
The zips are read from `$CONDGEN_DATA/omniglot`, else fetched from the authors' repository.
"""

import io
import zipfile
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from condgen.conditions import Label
from condgen.data import ink
from condgen.data.fetch import obtained, with_sum
from condgen.data.images import decode
from condgen.data.pixels import each
from condgen.data.store import Content, to_bytes, to_float
from condgen.errors import BadInput, require_whole

ADDRESS = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python/"
RUNS = "all_runs.zip"
SETS = {"small1": "images_background_small1.zip", "small2": "images_background_small2.zip"}
FOLDERS = {RUNS: "one-shot-classification/"}
"""Where, below `ADDRESS`, a file lies that is not at its top."""
SHA256 = {
    "images_background_small1.zip": "f38eb80f801274ac2b4dff5b24289016bfaba4a7d5bb50deebf27104ad6cb8a4",
    "images_background_small2.zip": "3ccaa407515a8778e5d0861875af38b17e418f301ad5bb3b5a6b65d901a41c7f",
    "all_runs.zip": "437c1eeab0af8484112e1b4cc0f3d541ec727f7c47b9b202da738af9dfd6c325",
}
SIDE = 105


class Drawings(NamedTuple):
    """Pixels uint8 (n, h, w, 1), and of each its character: "Alphabet/character05"."""

    pixels: np.ndarray
    characters: np.ndarray

    def of(self, rows: np.ndarray) -> "Drawings":
        return Drawings(self.pixels[rows], self.characters[rows])


def contents(into: Path, size: int | None = None) -> dict[str, Content]:
    """Train (136 characters), test (106 others) and small2 (those and 50 of train's), shape (1, 105, 105) or (1, size, size).

    Conditions `character` and `alphabet`, with the same names in every split. Ink is white on black. Raises BadInput for a size
    above 105.
    """
    _require_size(size)
    first, second = (_drawings(file, size) for file in SETS.values())
    new = ~np.isin(second.characters, first.characters)
    schema = _schema(np.concatenate([first.characters, second.characters]))
    notes = ["inverted: ink is white on black", *([f"resized from {SIDE} to {size} px, antialiased"] if size not in (None, SIDE) else [])]
    return {
        "train": _content(first, schema, notes),
        "test": _content(second.of(new), schema, [*notes, "only characters that are not in train"]),
        "small2": _content(second, schema, [*notes, f"{(~new).sum()} of the drawings are of characters of train, and are in it too"]),
    }


def _require_size(size: int | None) -> None:
    if size is not None:
        require_whole("size of omniglot, in px", size, 1, SIDE)


def _schema(characters: np.ndarray) -> dict[str, Label]:
    names = {"character": np.unique(characters), "alphabet": np.unique([_alphabet(c) for c in characters])}
    return {name: Label(tuple(map(str, found))) for name, found in names.items()}


def _alphabet(character: str) -> str:
    return str(character).split("/")[0]


def _content(drawings: Drawings, schema: dict[str, Label], notes: list[str]) -> Content:
    words = {"character": drawings.characters, "alphabet": np.array([_alphabet(c) for c in drawings.characters])}
    # the names are sorted, so a name's place among them is its index
    columns = {name: torch.from_numpy(np.searchsorted(schema[name].names, found)) for name, found in words.items()}
    return Content(drawings.pixels, columns, dict(schema), notes)


def _drawings(file: str, size: int | None) -> Drawings:
    with _opened(file) as archive:
        names = sorted(name for name in archive.namelist() if name.endswith(".png"))
        pixels = _ink_of(archive, names)
    characters = np.array(["/".join(name.split("/")[1:3]) for name in names])
    return Drawings(pixels if size in (None, SIDE) else ink.reduced(pixels, size), characters)


def _ink_of(archive: zipfile.ZipFile, names: list[str]) -> np.ndarray:
    """uint8 (n, 105, 105, 1), inverted."""
    return 255 - np.stack(list(each(decode, [archive.read(name) for name in names])))


def _opened(file: str) -> zipfile.ZipFile:
    mirror = ADDRESS + FOLDERS.get(file, "")
    return zipfile.ZipFile(io.BytesIO(obtained("omniglot", file, [mirror], partial(with_sum, sha256=SHA256[file]))))


# --- one-shot classification ----------------------------------------------------------------------------------------------


class Trial(NamedTuple):
    """One run: `shown` holds 20 characters of one alphabet, one drawing of each; `asked` other drawings of the same, in another order.

    Pictures are float32 (20, 1, h, w) in [-1, 1]; asked[i] is the character of shown[answers[i]].
    """

    shown: Tensor
    asked: Tensor
    answers: Tensor


def one_shot_runs(size: int | None = None, centred: bool = False, blur: float = 0.0) -> list[Trial]:
    """The 20 runs of Lake et al.: which of 20 characters of an alphabet is this, each seen once?

    Args:
        size: side in px; None keeps 105.
        centred: each picture's ink, before it is resized, with its centre of mass in the middle, by whole pixels.
        blur: sigma in px, after it is resized.

    Raises:
        BadInput: for a size above 105 and a negative blur; where all_runs.zip is not there and cannot be downloaded.
    """
    _require_size(size)
    if not blur >= 0:
        raise BadInput(f"blur is {blur!r}; expected a number of px of at least 0")
    with _opened(RUNS) as archive:
        return [_trial(archive, f"run{i:02d}", size, centred, blur) for i in range(1, 21)]


def _trial(archive: zipfile.ZipFile, run: str, size: int | None, centred: bool, blur: float) -> Trial:
    asked, right = zip(*(line.split() for line in archive.read(f"{run}/class_labels.txt").decode().splitlines() if line.strip()))
    shown = sorted(right)
    answers = torch.tensor([shown.index(name) for name in right])
    pixels = _ink_of(archive, [*shown, *asked])
    if centred:
        pixels = to_bytes(ink.centred(to_float(pixels), whole=True))
    x = ink.blurred(to_float(pixels if size in (None, SIDE) else ink.reduced(pixels, size)), blur)
    return Trial(x[: len(shown)], x[len(shown) :], answers)
