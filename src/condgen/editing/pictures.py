"""A person's own files, as the model would have met them in training; and what an edit leaves, which is read back the same way.

A picture file of any format that training reads is cropped to its central square, resized, and brought to the model's channels.
An .npz holds `x` (pictures or points), or latents `z`, and one array per condition, as `condgen sample` and `condgen edit` write
it. `FILE.npz:3` is its row 3 alone. Latents are believed where the file names the weights they belong to, or names none.
"""

import hashlib
import re
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condgen.conditions import Values, parse
from condgen.data.arrays import read_npz, survey_arrays
from condgen.data.images import Unreadable, decode, with_channels
from condgen.data.store import to_bytes, to_float
from condgen.editing.views import SPACES, has_styles
from condgen.errors import BadInput
from condgen.model import Model

OURS = ("x", "z", "weights", "space", "split")
"""Arrays that are no conditions. A condition of such a name is written as condition_NAME."""


@dataclass(frozen=True)
class Given:
    """One sample that a person gave.

    Args:
        name: of its file, with the row where the file holds several.
        x: (*shape), pictures in [-1, 1]; None where the file holds latents alone.
        z: its latent (...), where the file holds one that is this model's.
        c: the conditions that the file states, one row (1, ...) each.
        space: of z, one of `views.SPACES`, where the file says it.
    """

    name: str
    x: Tensor | None
    z: Tensor | None
    c: Values
    space: str | None = None


def read(model: Model, files: Iterable[str | Path]) -> list[Given]:
    """What the files hold, in order, brought to the model's shape.

    Raises:
        BadInput: naming the file, where it is not there, cannot be read, or holds what this model has no place for.
    """
    return [given for file in files for given in _read_file(model, str(file))]


def _read_file(model: Model, name: str) -> list[Given]:
    path, row = _with_row(name)
    if path.is_dir():
        raise BadInput(f"{name} is a folder; name the pictures in it, such as {path}/*.png")
    if not path.is_file():
        near = [p.name for p in path.parent.iterdir() if p.suffix == path.suffix][:4] if path.parent.is_dir() else []
        raise BadInput(f"there is no file {name}" + (f"; beside it are {', '.join(sorted(near))}" if near else ""))
    if path.suffix.lower() == ".npz":
        return _read_arrays(model, path, row)
    if len(model.shape) != 3:
        raise BadInput(f"{name}: this model makes points of {model.shape[0]} numbers; expected an .npz with x, float (n, {model.shape[0]})")
    return [Given(path.name, picture(model, path), None, {})]


def _with_row(name: str) -> tuple[Path, int | None]:
    """FILE.npz:3 is row 3 of FILE.npz, unless a file bears that very name."""
    found = re.fullmatch(r"(.+\.npz):(\d+)", name, re.IGNORECASE)
    return (Path(found[1]), int(found[2])) if found and not Path(name).exists() else (Path(name), None)


def picture(model: Model, path: Path) -> Tensor:
    """The file's picture as training would read it, (*model.shape) in [-1, 1]. Raises BadInput naming the file."""
    channels, h, w = model.shape
    try:
        pixels = decode(path.read_bytes(), h if h == w else None)
    except (Unreadable, OSError) as error:
        raise BadInput(f"{path} {error}" if isinstance(error, Unreadable) else f"{path} cannot be read: {error}") from None
    if pixels.shape[:2] != (h, w):
        raise BadInput(
            f"{path} has {pixels.shape[1]}x{pixels.shape[0]} px; this model's pictures are {w}x{h} px, which no square is cut to"
        )
    return to_float(np.array(in_channels(pixels, channels, path))[None])[0]


def in_channels(pixels: np.ndarray, channels: int, path: Path) -> np.ndarray:
    """uint8 (h, w, 1 or 3) as (h, w, channels); colours become grey by their luminance (ITU-R 601) where the model knows none."""
    if channels not in (1, 3):
        raise BadInput(f"{path}: this model's pictures have {channels} channels, which no picture file has; expected 1 or 3")
    if channels == 1 and pixels.shape[2] == 3:
        from PIL import Image

        return np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    return with_channels(pixels, channels)


# --- arrays ---------------------------------------------------------------------------------------------------------------


def _read_arrays(model: Model, path: Path, row: int | None) -> list[Given]:
    arrays = read_npz(path)
    if not {"x", "z"} & set(arrays):
        raise BadInput(f"{path} holds {', '.join(arrays) or 'nothing'}; expected pictures `x` or latents `z`")
    n = len(arrays["x"] if "x" in arrays else arrays["z"])
    if wrong := {k: v.shape for k, v in arrays.items() if not v.ndim or len(v) != n}:
        raise BadInput(f"{path}: {n} rows, but " + ", ".join(f"{k} is of shape {shape}" for k, shape in wrong.items()))
    if row is not None and row >= n:
        raise BadInput(f"{path} has no row {row}; its rows are 0 to {n - 1}")
    x, z = _samples(model, path) if "x" in arrays else None, _latents(model, path, arrays)
    if x is None and z is None:
        raise BadInput(f"{path} holds latents of other weights than this model's, and no pictures `x` to encode instead")
    c, space = _conditions(model, path, arrays), _space(model, path, arrays)
    rows = range(n) if row is None else [row]
    names = [path.name if n == 1 else f"{path.name}:{i}" for i in rows]
    return [
        Given(name, None if x is None else x[i], None if z is None else z[i], {k: v[i : i + 1] for k, v in c.items()}, space)
        for name, i in zip(names, rows, strict=True)
    ]


def _samples(model: Model, path: Path) -> Tensor:
    """x as training would read it, (n, *model.shape)."""
    square = model.shape[1] if len(model.shape) == 3 and model.shape[1] == model.shape[2] else None
    samples = survey_arrays(str(path), path, square if _is_pictures(path) else None, schema={}).samples
    assert samples is not None
    if samples.ndim == 4 and len(model.shape) == 3:
        samples = np.stack([in_channels(p, model.shape[0], path) for p in samples])
    x = to_float(samples) if samples.ndim == 4 else torch.from_numpy(samples)
    if tuple(x.shape[1:]) != tuple(model.shape):
        raise BadInput(f"{path}: x holds samples of shape {tuple(x.shape[1:])}; this model's are {tuple(model.shape)}")
    if not bool(x.isfinite().all()):
        raise BadInput(f"{path}: x holds a value that is not a finite number")
    return x


def _is_pictures(path: Path) -> bool:
    return read_npz(path)["x"].ndim > 2


def _latents(model: Model, path: Path, arrays: Mapping[str, np.ndarray]) -> Tensor | None:
    """z, where it is this model's; None where the file holds none, or names other weights."""
    if "z" not in arrays or ("weights" in arrays and {str(w) for w in arrays["weights"]} != {weights_of(model)}):
        return None
    z = torch.from_numpy(np.array(arrays["z"], dtype=np.float32))
    if not bool(z.isfinite().all()):
        raise BadInput(f"{path}: z holds a value that is not a finite number")
    return z


def _space(model: Model, path: Path, arrays: Mapping[str, np.ndarray]) -> str | None:
    """Whose latents z are, where the file says so: all of its rows are of one space."""
    named = {str(s) for s in arrays.get("space", ())} if has_styles(model) else set()
    if len(named) > 1 or not named <= set(SPACES):
        raise BadInput(f"{path}: its latents are of {', '.join(sorted(named)[:4])}; expected one of {', '.join(SPACES)}")
    return named.pop() if named else None


def _conditions(model: Model, path: Path, arrays: Mapping[str, np.ndarray]) -> Values:
    """Those that the file states and the model reads: values as they are stored, or words."""
    found = {}
    for name, condition in model.schema.items():
        if (array := arrays.get(member(name))) is None:
            continue
        if array.dtype.kind in "US":
            found[name] = torch.stack([parse(condition, w.decode() if isinstance(w, bytes) else str(w)) for w in array])
        else:
            found[name] = torch.from_numpy(np.array(array)).to(condition.dtype)
        if problem := condition.problem(found[name]):
            raise BadInput(f"{path}: condition {name!r}: {problem}")
    return found


def member(name: str) -> str:
    """The array that holds a condition.

    >>> member("digit"), member("x")
    ('digit', 'condition_x')
    """
    return f"condition_{name}" if name in OURS else name


def weights_of(model: Model) -> str:
    """A name for the model's weights: the first 16 hexadecimal digits of their SHA-256."""
    total = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        total.update(name.encode())
        total.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()[:16]


def write_latents(file: Path, model: Model, x: Tensor, z: Tensor, c: Values, space: str | None = None) -> None:
    """x (uint8 pictures, or float points), z and the conditions as an .npz that `read` reads, written whole or not at all.

    `space` is of `views.SPACES`, for a model that has several.

    Raises:
        BadInput: for a place that cannot be written.
    """
    arrays: dict[str, Any] = {"x": to_bytes(x) if x.dim() == 4 else x.numpy().astype(np.float32), "z": z.numpy()}
    arrays |= {"space": np.array([space] * len(z))} if space else {}
    arrays |= {"weights": np.array([weights_of(model)] * len(z))} | {member(k): v.cpu().numpy() for k, v in c.items()}
    draft = file.with_name(f".{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(draft, "w") as archive:  # and not np.savez, whose own parameters some names would be
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)
        draft.replace(file)
    except OSError as error:
        raise BadInput(f"{file} cannot be written: {error}") from None
