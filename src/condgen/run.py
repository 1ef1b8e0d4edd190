"""The description of a run: everything that decides a training, as data. JSON in, JSON out."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from condgen.errors import BadInput, require_whole, unknown


@dataclass(frozen=True)
class Optimizer:
    """One player's optimiser.

    Args:
        kind: "Adam", "AdamW" or "SGD".
        lr: learning rate at the first step.
        betas: Adam's (beta1, beta2).
        momentum: SGD's, at the first step.
        weight_decay: AdamW's decoupled, the others' L2 penalty.
        schedule: a key of `training.schedules.SCHEDULES`: how lr and momentum move over the run.
    """

    kind: str = "Adam"
    lr: float = 2e-4
    betas: tuple[float, float] = (0.0, 0.99)
    momentum: float = 0.0
    weight_decay: float = 0.0
    schedule: str = "constant"

    def __post_init__(self) -> None:
        """Raises BadInput for what no optimiser could be made of."""
        for name in ("lr", "momentum", "weight_decay"):
            if not _is_number(value := getattr(self, name)) or not value >= 0:
                raise BadInput(f"{name} is {value!r}; expected a number of at least 0")
        if not isinstance(self.betas, tuple) or len(self.betas) != 2 or not all(_is_number(b) and 0 <= b < 1 for b in self.betas):
            raise BadInput(f"betas is {self.betas!r}; expected two numbers from 0 to below 1")
        for name in ("kind", "schedule"):
            if not isinstance(value := getattr(self, name), str):
                raise BadInput(f"{name} is {value!r}; expected str")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class Run:
    """Everything that decides a training: the same run gives the same weights.

    Args:
        model: "file.Class" below `condgen.models`.
        data: an embedded set, a known one, or the path of a folder, zip or .npz.
        options: the model's constructor arguments besides shape and schema.
        optimizers: one for each player; a single one under "*" serves all.
        split: part of the data that is trained on, such as "train" or "train[:50000]".
        size: side of the pictures in px; None keeps the data's own.
        conditions: names of the data's conditions that the model reads; empty for all, ("none",) for none.
        batch: samples a step, over all processes together.
        steps: length of the run.
        seed: of weights, order and noise.
        half_life_images: of the moving average of the weights, in samples; 0 for none.
        precision: "32", "bf16", or "auto": bf16 where the machine computes convolutions faster in it.
        clip: largest norm of a player's gradient; None for no clipping.
        save_every, sample_every, log_every: in steps; 0 for never (a last checkpoint is always saved).
        metrics: what `evaluate` measures; empty for all that the model and its conditions allow.
        reported: the paper's values, metric -> value or (value, standard error).
        source: where in the paper.
        skip_bad: train without the pictures that cannot be read, counting them.
        name: of the preset.
    """

    model: str
    data: str
    options: dict[str, Any] = field(default_factory=dict)
    optimizers: dict[str, Optimizer] = field(default_factory=lambda: {"*": Optimizer()})
    split: str = "train"
    size: int | None = None
    conditions: tuple[str, ...] = ()
    batch: int = 64
    steps: int = 2000
    seed: int = 0
    half_life_images: float = 0.0
    precision: str = "auto"
    clip: float | None = None
    save_every: int = 500
    sample_every: int = 500
    log_every: int = 50
    metrics: tuple[str, ...] = ()
    reported: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    skip_bad: bool = False
    name: str = ""

    def __post_init__(self) -> None:
        """Raises BadInput for a field of a wrong kind, or out of its range."""
        for name, kind in _KINDS.items():
            if not isinstance(value := getattr(self, name), kind):
                raise BadInput(f"{name} is {value!r}; expected {' or '.join(k.__name__ for k in kind)}")
        for name, least in _LEAST.items():
            require_whole(name, getattr(self, name), least)
        if self.size is not None:
            require_whole("size", self.size, 1)
        if not self.half_life_images >= 0:
            raise BadInput(f"half_life_images is {self.half_life_images!r}; expected a number of at least 0")
        if self.clip is not None and not self.clip > 0:
            raise BadInput(f"clip is {self.clip!r}; expected a number above 0, or None")
        for player, o in self.optimizers.items():
            if not isinstance(o, Optimizer):
                raise BadInput(f"the optimizer of {player!r} is {o!r}; expected an Optimizer")

    def optimizer(self, player: str) -> Optimizer:
        """The player's own, or the one under "*"."""
        return self.optimizers.get(player) or self.optimizers["*"]

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Run":
        """Raises BadInput for a field that does not exist."""
        known = {f.name for f in dataclasses.fields(cls)}
        for name in data:
            if name not in known:
                raise unknown("field of a run", name, sorted(known))
        given = dict(data)
        try:
            if "optimizers" in given:
                given["optimizers"] = {k: Optimizer(**v | {"betas": tuple(v["betas"])}) for k, v in given["optimizers"].items()}
            return cls(**given | {k: tuple(given[k]) for k in ("metrics", "conditions") if k in given})
        except (TypeError, KeyError, AttributeError) as error:  # what is out of range says so itself
            raise BadInput(f"the description of the run cannot be used: {error}") from None


_KINDS: dict[str, tuple[type, ...]] = {
    **dict.fromkeys(("model", "data", "split", "precision", "source", "name"), (str,)),
    **dict.fromkeys(("options", "optimizers", "reported"), (dict,)),
    **dict.fromkeys(("conditions", "metrics"), (tuple,)),
    "half_life_images": (int, float),
    "clip": (int, float, type(None)),
}
"""Fields of a run that are not whole numbers, and what they may be."""
_LEAST = {"batch": 1, "steps": 0, "seed": 0, "save_every": 0, "sample_every": 0, "log_every": 0}
