"""Conditional generation in PyTorch: say what is wanted, and a trained model draws it.

The names below are imported on first use, so that `condgen --help` and tools that need no tensors stay fast.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

try:
    __version__ = version("condgen")
except PackageNotFoundError:  # run from a source tree that was not installed
    __version__ = "0+source"

_HOME = {
    "load": "condgen.api",
    "train": "condgen.api",
    "evaluate": "condgen.api",
    "presets": "condgen.api",
    "Run": "condgen.model",
    "Optimizer": "condgen.model",
    "Model": "condgen.model",
    "Sampler": "condgen.model",
    "BadInput": "condgen.errors",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'condgen' has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
