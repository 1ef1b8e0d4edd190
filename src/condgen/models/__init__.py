"""One paper, one file. The folder is the registry: `"cgan.CGAN"` is an import path below this package.

`find` resolves what a person writes (a file, or file.Class); `presets` gathers the PRESETS of every file.
"""

import json
import pkgutil
import re
from dataclasses import replace
from importlib import import_module
from typing import Any

import condgen
from condgen.conditions import schema_to_json
from condgen.errors import BadInput, unknown
from condgen.model import Model, Run


def names() -> list[str]:
    """Files that hold a model."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__))


def find(name: str) -> type[Model]:
    """The class behind "cgan.CGAN", or behind "cgan": the file's only model, or that of its name. Raises BadInput naming the nearest."""
    file, _, cls = name.partition(".")
    if not re.fullmatch(r"[a-z][a-z0-9_]*(\.[A-Za-z][A-Za-z0-9_]*)?", name) or file not in names():
        raise unknown("model", name, names())
    defined = {k: v for k, v in vars(import_module(f"{__name__}.{file}")).items() if _is_own_model(v, f"{__name__}.{file}")}
    if not cls and (own := [v for k, v in defined.items() if len(defined) == 1 or k.lower() == file]):
        return own[0]
    if cls not in defined:
        raise unknown(f"model in {file}", cls or file, [f"{file}.{k}" for k in defined])
    return defined[cls]


def path(model: type[Model] | Model) -> str:
    """ "cgan.CGAN" for the class CGAN in cgan.py: what `find` reads."""
    cls = model if isinstance(model, type) else type(model)
    if not cls.__module__.startswith(f"{__name__}."):
        raise BadInput(
            f"{cls.__name__} is defined in {cls.__module__}, not in a file below condgen.models: it cannot be found again by name"
        )
    return f"{cls.__module__.rpartition('.')[2]}.{cls.__name__}"


def config_of(model: Model) -> dict[str, Any]:
    """What is needed to build the model again, as JSON data: library, version, model, shape, options, schema."""
    described = {"model": path(model), "shape": model.shape, "options": model.options, "schema": schema_to_json(model.schema)}
    return {"library": "condgen", "version": condgen.__version__, **json.loads(json.dumps(described))}


def presets() -> dict[str, Run]:
    """Every preset, by name."""
    found: dict[str, Run] = {}
    for file in names():
        found |= getattr(import_module(f"{__name__}.{file}"), "PRESETS", {})
    return {name: replace(run, name=name) for name, run in found.items()}


def _is_own_model(value: object, module: str) -> bool:
    return isinstance(value, type) and issubclass(value, Model) and value.__module__ == module
