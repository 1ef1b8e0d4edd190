"""Whom a figure is drawn of: a model that draws pictures, what it was trained on, and what is asked of it."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from condgen import api
from condgen.conditions import Attributes, Vector
from condgen.data.store import Dataset
from condgen.drawing import read_words
from condgen.errors import BadInput, unknown
from condgen.model import Model, Run, capabilities

Words = Mapping[str, Any] | Sequence[str]
"""What is asked: conditions by name, or the command line's NAME=VALUE pairs."""


def painter(name: str) -> Any:
    """The trained model behind a name. Raises BadInput for one that draws no pictures."""
    model = api.load(name)
    if "sample" not in capabilities(model):
        raise BadInput(f"{name}: {type(model).__name__} cannot sample; it can: {', '.join(capabilities(model)) or 'only be trained'}")
    if len(model.shape) != 3:
        raise BadInput(f"{name} draws points of shape {tuple(model.shape)}; this figure is made of pictures")
    return model


def run_of(model: Model, name: str) -> Run:
    """The run that made the model. Raises BadInput where it was not kept."""
    if "run" not in model.facts:
        raise BadInput(f"{name} does not say what it was trained on: no training picture can be shown beside its samples")
    return Run.from_json(model.facts["run"])


def pictures_of(model: Model, run: Run, split: str | None = None) -> Dataset:
    """The split of the run's data, by default the one it trains on. Raises BadInput where it is not what the model knows."""
    loaded = model.reads(api.dataset(run, split))
    if tuple(loaded.shape) != tuple(model.shape):
        raise BadInput(f"the model draws pictures of shape {tuple(model.shape)}, those of {run.data} are {tuple(loaded.shape)}")
    for name, condition in model.schema.items():
        if loaded.schema.get(name) != condition:
            raise BadInput(f"condition {name!r} is not the same to the model and in {run.data} ({loaded.split})")
    return loaded


def in_words(model: Model, asked: Words) -> Mapping[str, Any]:
    return asked if isinstance(asked, Mapping) else read_words(asked, model.schema)


def attributes_of(model: Model) -> dict[str, tuple[float, float]]:
    """attribute -> its lowest and highest value in the data, of every Attributes condition."""
    found = [c for c in model.schema.values() if isinstance(c, Attributes)]
    return {name: (low, high) for c in found for name, low, high in zip(c.names, c.low, c.high, strict=True)}


def axes_of(model: Model) -> dict[str, tuple[str, int]]:
    """ "look.1" -> ("look", 0) for every axis of every Vector condition."""
    return {f"{k}.{i + 1}": (k, i) for k, c in model.schema.items() if isinstance(c, Vector) for i in range(c.dim)}


def preferred(names: Iterable[str], wanted: Sequence[str], most: int) -> list[str]:
    """Of the wanted names those that there are, whatever their case and separators; where there are none, the first ones.

    >>> preferred(["Bald", "Blond Hair", "Smiling"], ("smiling", "blond_hair", "young"), 8)
    ['Smiling', 'Blond Hair']
    """
    plain = {name.lower().replace(" ", "_").replace("-", "_"): name for name in names}
    return ([plain[w] for w in wanted if w in plain] or list(plain.values()))[:most]


def known(names: Sequence[str], valid: Iterable[str]) -> list[str]:
    """The names. Raises BadInput for one that is not valid, or is given twice."""
    valid = list(valid)
    for name in names:
        if name not in valid:
            raise unknown("attribute", name, valid)
        if list(names).count(name) > 1:
            raise BadInput(f"attribute {name} is given twice")
    return list(names)
