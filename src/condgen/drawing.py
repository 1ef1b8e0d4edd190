"""Samples on their way out: the words that ask for them, and the files that hold them."""

import json
import secrets
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from condgen.conditions import Attributes, Label, Schema, Values
from condgen.data.store import to_bytes
from condgen.editing.pictures import write_latents
from condgen.editing.space import Space, at_rest
from condgen.editing.views import has_styles, own_space, truncated_view
from condgen.errors import BadInput
from condgen.model import Model, capabilities

MOST_IN_GRID = 10_000


@dataclass(frozen=True)
class Latents:
    """z (n, ...) of samples, in which of `views.SPACES`, and of which model: what `condgen edit` needs to go on from them."""

    z: Tensor
    space: str
    model: Model


@dataclass(frozen=True)
class Drawn:
    """Samples x (n, *shape), the conditions they were drawn under, how many columns suit a grid of them (None: any), and their latents,
    of a model with styles."""

    x: Tensor
    c: Values
    columns: int | None = None
    latents: Latents | None = None


def read_words(pairs: Sequence[str], schema: Schema) -> dict[str, str]:
    """["digit=7", "smile=0.8"] as a mapping. Raises BadInput for a pair without "=", or a name given twice.

    The name ends at the first "=", or, where a condition or attribute has one in its name, at the last that ends a known name.
    """
    known = {*schema, *(a for c in schema.values() if isinstance(c, Attributes) for a in c.names)}
    asked: dict[str, str] = {}
    for pair in pairs:
        cuts = [i for i, letter in enumerate(pair) if letter == "="]
        cut = max((i for i in cuts if pair[:i].strip() in known), default=cuts[0] if cuts else 0)
        name, value = pair[:cut].strip(), pair[cut + 1 :].strip()
        if not name:
            raise BadInput(f"--set {pair!r}: write NAME=VALUE, such as --set digit=7")
        if name in asked:
            raise BadInput(f"--set {name} is given twice")
        asked[name] = value
    return asked


def draw(model: Model, asked: Mapping[str, Any], n: int, seed: int | None) -> Drawn:
    """n samples. A label that is left open goes through its names in turn, so that a grid shows every class.

    Raises:
        BadInput: for names and values the model does not know, or a model that cannot sample.
    """
    if "sample" not in capabilities(model):
        hint = ": give it your pictures, by `condgen translate RUN PICTURE --to DOMAIN`" if "translate" in capabilities(model) else ""
        raise BadInput(f"{type(model).__name__} cannot sample; it can: {', '.join(capabilities(model)) or 'only be trained'}{hint}")
    if n < 1:
        raise BadInput(f"cannot make {n} samples; ask for at least 1")
    label = _open_label(model, asked)
    turns = {label[0]: _in_turn(label[1].names, n)} if label else {}
    values = model.completed({**asked, **turns}, n, seed)
    columns = n // len(label[1].names) if label and n % len(label[1].names) == 0 else None
    if has_styles(model):
        latents = latents_of(model, values, n, seed)
        return Drawn(Space(truncated_view(model)).decode(latents.z, values), values, columns, latents)
    return Drawn(model.sample(values, n=n, seed=seed).cpu(), values, columns)  # type: ignore[operator]


def latents_of(model: Model, values: Values, n: int, seed: int | None) -> Latents:
    """Of the n samples that `model.sample(values, n, seed)` draws: its own; of a truncated model w or w+, in which they draw the same
    though psi is forgotten.

    Args:
        model: with styles.
        values: a row a sample.
        n: how many.
        seed: None for new ones.
    """
    seen: Any = truncated_view(model)
    with at_rest(model):
        model.noise.seed(secrets.randbits(48) if seed is None else seed)
        z = seen.prior(n, {k: v.to(model.device) for k, v in values.items()}).float().cpu()
    return Latents(z, getattr(seen, "space", own_space(model)), model)


def _in_turn(names: Sequence[str], n: int) -> list[str]:
    """n names, each equally often and those alike together, so that a row of a grid is one class."""
    return [names[i * len(names) // n if n >= len(names) else i] for i in range(n)]


def _open_label(model: Model, asked: Mapping[str, Any]) -> tuple[str, Label] | None:
    """The first label, when nothing was asked of any: several in turn would tie them to each other."""
    labels = [(k, c) for k, c in model.schema.items() if isinstance(c, Label)]
    return None if not labels or any(k in asked for k, _ in labels) else labels[0]


def check_place(model: Model, n: int, out: Path) -> None:
    """Raises BadInput, before anything is drawn, for a file that cannot hold n samples of this model."""
    if out.suffix not in (".npz", ".png"):
        raise BadInput(f"{out}: the ending decides what is written, .npz for arrays or .png for a grid")
    if out.suffix == ".png" and len(model.shape) != 3:
        raise BadInput(f"samples of shape {tuple(model.shape)} are no pictures: write them to an .npz")
    if out.suffix == ".png" and n > MOST_IN_GRID:
        raise BadInput(f"a grid holds at most {MOST_IN_GRID:,} pictures, not {n:,}: draw fewer, or write them to an .npz")


def write(drawn: Drawn, out: Path) -> None:
    """.npz with x, uint8 (n, h, w, c) (float32 for points), and one array per condition; .png with a grid.

    A condition named `x` is written as `condition_x`. With latents the file is that of an edit: `z`, `space` and `weights` besides.
    Raises BadInput for a place that cannot be written.
    """
    if out.suffix == ".npz" and (of := drawn.latents) is not None:
        return write_latents(out, of.model, drawn.x, of.z, drawn.c, of.space)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        _write_arrays(drawn, out) if out.suffix == ".npz" else _write_grid(drawn, out)
    except OSError as error:
        raise BadInput(f"{out} cannot be written: {error}") from None


def _write_arrays(drawn: Drawn, out: Path) -> None:
    x = to_bytes(drawn.x) if drawn.x.dim() == 4 else drawn.x.numpy().astype(np.float32)
    arrays = {"x": x, **{_member(k, drawn.c): v.numpy() for k, v in drawn.c.items()}}
    with zipfile.ZipFile(out, "w") as archive:  # and not np.savez, whose own parameters some names would be
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)


def _member(name: str, taken: Mapping[str, Any]) -> str:
    """The array of a condition: its own name, but `x`, which are the samples, is `condition_x`."""
    member = name if name != "x" else "condition_x"
    while member != name and member in taken:
        member = f"condition_{member}"
    return member


def _write_grid(drawn: Drawn, out: Path) -> None:
    from condgen.evaluation.grids import save_png

    save_png(drawn.x, out, columns=drawn.columns)


def describe_text(found: Mapping[str, Any]) -> str:
    """`api.describe` for a person."""
    lines = [f"{found['model']}: {(found.get('about') or '').splitlines()[0]}"]
    does = "translates pictures" if "translate" in found["can"] else "draws samples"
    lines += [f"{does} of shape {tuple(found['shape'])}, {found['parameters']:,} parameters"] if "shape" in found else []
    lines += [f"can: {', '.join(found['can']) or 'be trained'}"]
    for name, c in (found.get("conditions") or {}).items():
        asked = f"--to ({name})" if "translate" in found["can"] else f"--set {name}=..."
        lines.append(f"  {asked}  {c['kind']}: " + ", ".join(f"{k} {json.dumps(v)}" for k, v in c.items() if k != "kind"))
    lines += [f"  {k} = {v!r}" for k, v in found["options"].items()]
    run = found.get("run")
    verb = "trained on" if "step" in found else "will train on"  # a preset has no step yet
    lines += [f"{verb} {run['data']} ({run['split']}), {found.get('step') or run['steps']} steps of batch {run['batch']}"] if run else []
    return "\n".join(lines)
