"""Checkpoints that are either whole or named as damaged: safetensors and JSON under a manifest of SHA-256 sums.

    RUN/checkpoints/step-000500/{model,ema,optimizers,rows}.safetensors, state.json, manifest.json

A checkpoint is written to a temporary folder, each file flushed to disk, the folder renamed, and only then are older ones
removed: at any moment at least one whole checkpoint lies there. Nothing is ever unpickled.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from condgen.errors import BadInput

log = logging.getLogger("condgen")
KEEP = 2
"""Checkpoints that stay after a newer one is written, the new one included."""


@dataclass(frozen=True)
class Checkpoint:
    """What was read: named groups of tensors, and the JSON state."""

    folder: Path
    tensors: dict[str, dict[str, Tensor]]
    state: dict[str, Any]


def write(root: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> Path:
    """Write root/step-NNNNNN whole, or raise and leave every earlier checkpoint as it was.

    Raises:
        BadInput: where the disk is full or the folder cannot be written; the message says that earlier ones are whole.
    """
    final, draft = root / f"step-{step:06d}", root / f".draft-{step:06d}-{os.getpid()}"
    try:
        shutil.rmtree(draft, ignore_errors=True)  # of a killed process that had the same number
        draft.mkdir(parents=True)
        for name, group in tensors.items():
            save_file({k: v.detach().contiguous().cpu() for k, v in group.items()}, draft / f"{name}.safetensors")
        (draft / "state.json").write_text(json.dumps(state, indent=1))
        sums = {f.name: {"sha256": digest(f), "bytes": f.stat().st_size} for f in sorted(draft.iterdir())}
        (draft / "manifest.json").write_bytes(_manifest_text({"step": step, "files": sums}))
        for f in draft.iterdir():
            f.chmod(0o644)  # safetensors writes 0600 whatever the umask
            flush(f)
        flush(draft)
        _put_in_place(draft, final)
    except (OSError, SafetensorError) as error:
        untouched = f"earlier checkpoints in {root} are untouched"
        raise BadInput(f"the checkpoint of step {step} could not be written ({error}); {untouched}") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    _prune(root, step)
    return final


def _put_in_place(draft: Path, final: Path) -> None:
    doomed = draft.with_name(f"{draft.name}-replaced")
    if final.exists():  # a damaged one of the same step
        final.rename(doomed)
    draft.rename(final)
    flush(final.parent)
    shutil.rmtree(doomed, ignore_errors=True)


def _prune(root: Path, step: int) -> None:
    """Keep the newest up to `step`, which was just written. What is newer was damaged, or the run would have gone on from it."""
    older = [f for f in folders(root) if _number(f) <= step]
    for doomed in {*folders(root)} - {*older[-KEEP:]}:
        shutil.rmtree(doomed, ignore_errors=True)


def clean(root: Path) -> None:
    """Remove what processes left that were killed while they wrote. Only for who alone may write here."""
    for draft in root.glob(".draft-*"):
        shutil.rmtree(draft, ignore_errors=True)


def folders(root: Path) -> list[Path]:
    """Checkpoint folders, oldest first."""
    return sorted((f for f in root.glob("step-*") if re.fullmatch(r"step-\d{6,}", f.name)), key=_number)


def _number(folder: Path) -> int:
    return int(folder.name.removeprefix("step-"))


def newest(root: Path) -> Checkpoint | None:
    """The newest whole checkpoint; each newer damaged one is logged by name and passed over. None where there is none.

    Raises:
        BadInput: where checkpoints exist but none is whole, naming what is wrong with each.
    """
    problems = []
    for folder in reversed(folders(root)):
        problem = damage(folder)
        if problem is None:
            try:
                return read(folder)
            except (SafetensorError, ValueError, OSError) as error:  # its sums are right: it was written so
                problem = f"it is no checkpoint of condgen: {error}"
        problems.append(f"{folder.name}: {problem}")
        log.warning("checkpoint %s is damaged and passed over (%s)", folder.name, problem)
    if problems:
        raise BadInput(f"no whole checkpoint in {root}: " + "; ".join(problems))
    return None


def read(folder: Path) -> Checkpoint:
    """A checkpoint that `damage` found whole: the files its manifest names, and no others."""
    names = [Path(name) for name in json.loads((folder / "manifest.json").read_bytes())["files"]]
    tensors = {name.stem: load_file(folder / name.name) for name in names if name.suffix == ".safetensors"}
    return Checkpoint(folder, tensors, json.loads((folder / "state.json").read_text()))


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint folder, in words, or None if it is whole to the last bit."""
    try:
        text = (folder / "manifest.json").read_bytes()
        manifest = json.loads(text)
        if text != _manifest_text({"step": manifest["step"], "files": manifest["files"]}):
            return "manifest.json does not match its own sum"
        if folder.name != f"step-{manifest['step']:06d}":
            return f"manifest.json belongs to step {manifest['step']}"
    except FileNotFoundError:
        return "manifest.json is missing"
    except (ValueError, KeyError, TypeError, OSError, RecursionError) as error:
        return f"manifest.json cannot be read ({type(error).__name__})"
    return next(filter(None, (_damage_of(folder / name, expected) for name, expected in manifest["files"].items())), None)


def _damage_of(file: Path, expected: Mapping[str, Any]) -> str | None:
    try:
        if not file.is_file():
            return f"{file.name} is missing"
        if (size := file.stat().st_size) != expected["bytes"]:
            return f"{file.name} has {size} bytes instead of {expected['bytes']}"
        return None if digest(file) == expected["sha256"] else f"{file.name} does not match its SHA-256 sum"
    except OSError as error:
        return f"{file.name} cannot be read ({error.strerror})"


def _manifest_text(content: Mapping[str, Any]) -> bytes:
    """Canonical bytes with a sum over themselves, so that a change of any byte is seen."""
    body = json.dumps(content, sort_keys=True)
    return json.dumps({**content, "sum": hashlib.sha256(body.encode()).hexdigest()}, sort_keys=True, indent=1).encode()


def digest(file: Path) -> str:
    with file.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def flush(path: Path) -> None:
    """fsync of a file or a folder."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def atomic(file: Path) -> Iterator[Path]:
    """A path to write to; it becomes `file` when the block ends, or vanishes if it fails."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        yield draft
        draft.chmod(0o644)
        flush(draft)
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
