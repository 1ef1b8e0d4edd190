"""A model on disk or on the hub: config.json, model.safetensors (what leaves a run: no critics), rows.safetensors, README.md.

Nothing is ever unpickled. A class is found by name below `condgen.models` and nowhere else, and a config is compared with the
weights' header before any memory is taken.
"""

import json
import logging
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from condgen import models
from condgen.card import card
from condgen.conditions import Values, check_values, schema_from_json
from condgen.errors import BadInput, unknown
from condgen.model import Model, Run
from condgen.training.checkpoint import atomic, newest
from condgen.training.ema import kept

log = logging.getLogger("condgen")
CONFIG, WEIGHTS, ROWS, CARD = "config.json", "model.safetensors", "rows.safetensors", "README.md"
ROWS_BYTES = 1 << 20
"""Largest size of the rows of real conditions that travel with a model."""
CONFIG_BYTES = 1 << 20
FACTS: dict[str, tuple[type, ...]] = {"run": (dict,), "data": (str,), "step": (int,), "seconds": (int, float)}
"""What a config, and a checkpoint, may know of the run."""
PICKLES = (".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".bin")


def save(model: Model, folder: str | os.PathLike[str], facts: Mapping[str, Any]) -> None:
    """See `Model.save_pretrained`."""
    root = Path(folder)
    config = models.config_of(model) | {k: facts[k] for k in FACTS if k in facts}
    with atomic(root / WEIGHTS) as draft:
        save_file({k: v.detach().contiguous().cpu() for k, v in kept(model).items()}, draft, metadata={"format": "pt"})
    with atomic(root / ROWS) as draft:
        save_file(_few(model.rows), draft)
    with atomic(root / CARD) as draft:
        draft.write_text(card(config, model, facts, name=root.resolve().name))
    with atomic(root / CONFIG) as draft:
        draft.write_text(json.dumps(config, indent=1))


def _few(rows: Values) -> Values:
    total = sum(v.numel() * v.element_size() for v in rows.values())
    n = next((len(v) for v in rows.values()), 0)
    n = max(1, n * ROWS_BYTES // total) if total > ROWS_BYTES else n
    return {k: v[:n].contiguous().cpu() for k, v in rows.items()}


def load(name: str | os.PathLike[str], revision: str | None = None) -> Model:
    """A model from a folder that `save` wrote, a run's folder (its newest whole checkpoint), or a hub name `owner/name`.

    Raises:
        BadInput: for what is not there, is damaged, is a pickle, or does not fit its own config.
    """
    root = Path(name)
    if root.is_file():
        raise BadInput(_refusal(root))
    if (root / "checkpoints").is_dir() and (saved := newest(root / "checkpoints")):
        weights = saved.tensors.get("ema", saved.tensors["model"])
        return _with_facts(_assemble(saved.state["config"], weights, saved.tensors["rows"], str(saved.folder)), saved.state)
    if not root.is_dir():
        root = _from_hub(str(name), revision)
    if not (root / CONFIG).is_file():
        others = [f.name for f in root.iterdir() if f.suffix in PICKLES]
        raise BadInput(
            _refusal(root / others[0]) if others else f"{root} holds neither a {CONFIG} nor checkpoints: it is no model and no run"
        )
    config = read_config(root / CONFIG)
    return _with_facts(_assemble(config, _tensors(root / WEIGHTS, config), _tensors(root / ROWS), str(root)), config)


def _with_facts(model: Model, found: Mapping[str, Any]) -> Model:
    """The model, with what is known of its run; what makes no sense is left out, for the model is whole without it."""
    model.facts = {k: found[k] for k, kind in FACTS.items() if isinstance(found.get(k), kind)}
    try:
        Run.from_json(model.facts.get("run", {"model": "", "data": ""}))
    except BadInput as error:
        log.warning("what is written of this model's run is not used: %s", error)
        del model.facts["run"]
    return model


def _refusal(file: Path) -> str:
    if file.suffix in PICKLES or file.read_bytes()[:2] in (b"PK", b"\x80\x02", b"\x80\x04", b"\x80\x05"):
        return f"{file} is a pickle: reading one can run any code in it, so it is never read. Give a folder with {CONFIG} and {WEIGHTS}."
    return f"{file} is a file; give the folder with {CONFIG} and {WEIGHTS}, or a run's folder"


def read_config(file: Path) -> dict[str, Any]:
    """The config of a saved model. Raises BadInput where it is none of ours."""
    try:
        if file.stat().st_size > CONFIG_BYTES:
            raise BadInput(f"{file} has {file.stat().st_size} bytes; a config has at most {CONFIG_BYTES}")
        config = json.loads(file.read_text())
        if not isinstance(config, dict) or config.get("library") != "condgen":
            raise BadInput(f"{file} is not a config of condgen")
        return config
    except (ValueError, RecursionError, OSError) as error:
        raise error if isinstance(error, BadInput) else BadInput(f"{file} cannot be read: {error}") from None


def build(config: Mapping[str, Any]) -> Model:
    """A model with fresh weights. Raises BadInput for a class, an option or a condition that does not exist."""
    cls = models.find(str(config.get("model", "")))
    try:
        options = {k: tuple(v) if isinstance(v, list) else v for k, v in config.get("options", {}).items()}
        if not all(type(side) is int and side > 0 for side in config["shape"]):
            raise ValueError(f"its shape is {config['shape']!r}; expected whole numbers of at least 1")
        return cls(shape=tuple(config["shape"]), schema=schema_from_json(config["schema"]), **options)
    except BadInput:
        raise
    except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RuntimeError) as error:  # whatever nonsense builds
        raise BadInput(f"the config does not fit {config.get('model')}: {error}") from None


def _tensors(file: Path, config: Mapping[str, Any] | None = None) -> dict[str, Tensor]:
    try:
        if config is not None:
            _compare(file, config)
        return load_file(file)
    except FileNotFoundError:
        raise BadInput(f"{file} is missing") from None
    except (SafetensorError, OSError) as error:
        raise BadInput(f"{file} is no whole safetensors file: {error}") from None


def _compare(file: Path, config: Mapping[str, Any]) -> None:
    """Names and shapes of the file's header against the model's, before memory is taken."""
    with torch.device("meta"):
        expected = {k: tuple(v.shape) for k, v in kept(build(config)).items()}
    with safe_open(file, framework="pt") as f:
        found = {k: tuple(f.get_slice(k).get_shape()) for k in f.keys()}  # noqa: SIM118 (not a mapping)
    lines = [
        f"{k} has shape {found[k]}, the config asks for {expected[k]}" for k in expected.keys() & found.keys() if found[k] != expected[k]
    ]
    lines += [f"{k} is missing" for k in sorted(expected.keys() - found.keys())] + [
        f"{k} is unknown" for k in sorted(found.keys() - expected.keys())
    ]
    if lines:
        raise BadInput(
            f"{file} does not fit its config: " + "; ".join(lines[:5]) + (f"; and {len(lines) - 5} more" if len(lines) > 5 else "")
        )


def _assemble(config: Mapping[str, Any], weights: dict[str, Tensor], rows: Values, where: str) -> Model:
    model = build(config)
    for critic in model.critics:
        if hasattr(model, critic):
            delattr(model, critic)
    try:
        model.load_state_dict({k: v for k, v in weights.items() if k.split(".")[0] not in model.critics})
    except RuntimeError as error:
        raise BadInput(f"the weights of {where} do not fit its config: {error}") from None
    if model.schema:
        check_values(model.schema, rows)
        model.rows = {k: rows[k] for k in model.schema}
        if len(counts := {len(v) for v in model.rows.values()}) > 1 or 0 in counts:
            raise BadInput(f"the rows of {where} are {sorted(counts)} for different conditions; expected as many for each, at least one")
    return model.eval().requires_grad_(False)


def _from_hub(name: str, revision: str | None) -> Path:
    runs = sorted({f.parent.name for near in (Path("runs"), Path(name).parent) for f in near.glob("*/run.json")})
    if _looks_like_a_path(name):
        raise BadInput(f"there is no folder {name}: {unknown('run', Path(name).name, runs)}")
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise unknown("model or run", name, runs)
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=[CONFIG, WEIGHTS, ROWS, CARD]))
    except Exception as error:  # of the hub, of the name's form, or of whatever network library carries it
        raise BadInput(f"{name} is no folder here, and the hub does not give it: {error}") from None


def _looks_like_a_path(name: str) -> bool:
    """Such a name is never asked of the hub: ./x, ../x, /x, ~/x, a/b/c, or one in a folder that is here."""
    first = name.split(os.sep)[0]
    return name.startswith((".", "~", os.sep)) or name.count(os.sep) > 1 or (os.sep in name and Path(first).is_dir())


def push(model: Model, repo_id: str, private: bool, facts: Mapping[str, Any]) -> str:
    """See `Model.push_to_hub`."""
    from huggingface_hub import HfApi

    api = HfApi()
    if "run" in facts:  # where the data lies is nobody else's business
        facts = {**facts, "run": {**facts["run"], "data": Path(facts["run"]["data"]).name}}
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent) / repo_id.split("/")[-1]
        save(model, folder, {**facts, "repo_id": repo_id})
        address = api.create_repo(repo_id, private=private, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder, commit_message="A model trained with condgen")
    return str(address)
