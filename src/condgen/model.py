"""The contract of a model, and the description of a run.

A model is one paper: its nets, its objectives and its algorithm, told as *turns*. It names its *players* (who is trained)
and never sees an optimiser; the loop in `training` knows players and never a paper. What else a model can do (sample,
encode, decode, weigh a likelihood, see features) is a *capability*: a protocol that every tool discovers by itself.
"""

import dataclasses
import inspect
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from condgen.asking import complete
from condgen.conditions import Schema, Values
from condgen.data.store import Batch
from condgen.errors import BadInput, require_whole, unknown

Shape = tuple[int, ...]
Turn = dict[str, dict[str, Tensor]]
"""player -> term -> one value per sample. The loop descends the mean of each player's sum of terms."""


class Noise:
    """Standard noise for the joint batch, of which this process keeps its own rows.

    Drawn on the CPU from a generator of its own, so that one process and several, and every kind of device, see the same numbers.
    """

    def __init__(self) -> None:
        self.generator = torch.Generator()
        self.rank, self.world = 0, 1

    def seed(self, seed: int | None) -> None:
        self.generator.manual_seed(secrets.randbits(48) if seed is None else seed)

    def normal(self, n: int, *shape: int) -> Tensor:
        """N(0, 1), float32 (n, *shape)."""
        return self._own(torch.randn(n * self.world, *shape, generator=self.generator))

    def uniform(self, n: int, *shape: int) -> Tensor:
        """U(0, 1), float32 (n, *shape)."""
        return self._own(torch.rand(n * self.world, *shape, generator=self.generator))

    def _own(self, joint: Tensor) -> Tensor:
        return joint.chunk(self.world)[self.rank]


class Model(nn.Module, ABC):
    """One paper.

    Args:
        shape: (c, h, w) of a picture in [-1, 1], or (d,) of a point.
        schema: the conditions that the model reads. A model without conditions passes {}.
    """

    critics: ClassVar[tuple[str, ...]] = ("D",)
    """Attributes that serve training alone; they are in checkpoints, not in the model that leaves a run."""

    options: dict[str, Any]
    """What the constructor was given besides shape and schema: with these two, enough to build the model again."""

    facts: dict[str, Any]
    """What a loaded model's run is known to have been: "run", "data", "step", "seconds", as far as they were kept; else empty."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Model":
        self = super().__new__(cls)
        given = inspect.signature(cls.__init__).bind(self, *args, **kwargs).arguments
        object.__setattr__(self, "options", {k: v for k, v in list(given.items())[1:] if k not in ("shape", "schema")})
        return self

    def __init__(self, shape: Shape, schema: Schema):
        super().__init__()
        self.shape, self.schema = tuple(shape), dict(schema)
        self.noise = Noise()
        self.facts = {}
        self._rows: Values | None = None

    @property
    def rows(self) -> Values:
        """Valid values for what a person leaves open: rows of the training data, or even draws before any training."""
        if self._rows is None:
            seeded = torch.Generator().manual_seed(0)
            self._rows = {name: c.uniform(256, seeded) for name, c in self.schema.items()}
        return self._rows

    @rows.setter
    def rows(self, values: Values) -> None:
        self._rows = values

    def players(self) -> dict[str, list[nn.Module]]:
        """Who is trained, by name."""
        return {"model": [self]}

    @abstractmethod
    def turns(self, batch: Batch, step: int) -> Iterator[Turn]:
        """The paper's algorithm: `yield` stands wherever the paper says "update"."""

    def start(self, batch: Batch) -> None:
        """Called once before the first step, with up to 10,000 training samples: for what is set from the data (biases, centring)."""

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def completed(self, c: Mapping[str, Any] | None, n: int | None, seed: int | None) -> Values:
        """The conditions (n, ...) that samples are drawn under: what is asked, and rows that the seed chooses for what is left open.

        Raises:
            BadInput: for a name or a value the model does not know, or an n or a seed that is no whole number.
        """
        if not isinstance(c, Mapping | None):
            raise BadInput(f"what is asked is {c!r}; expected conditions by name, such as {{'digit': '7'}}")
        for name, value, least in (("n", n, 1), ("seed", seed, 0)):
            if value is not None:
                require_whole(name, value, least)
        chosen = secrets.randbits(48) if seed is None else seed
        # As many rows of each condition, and one seed: what belongs together stays together.
        rows = {k: v[torch.randperm(len(v), generator=torch.Generator().manual_seed(chosen))] for k, v in self.rows.items()}
        return complete(self.schema, c or {}, rows, n)

    def save_pretrained(self, folder: Any, facts: Mapping[str, Any] | None = None) -> None:
        """Write config.json, model.safetensors and README.md, from which `from_pretrained` builds the model again.

        Args:
            folder: made if absent; earlier files of these names are replaced atomically.
            facts: what a run knows (its presets, measures, data), for the model card; what is left out is taken from `self.facts`.
        """
        from condgen.pretrained import save

        save(self, folder, {**self.facts, **(facts or {})})

    @classmethod
    def from_pretrained(cls, name: Any, revision: str | None = None) -> "Model":
        """A model of this class from a folder, or from a hub name `owner/name`. Raises BadInput for files that do not fit."""
        from condgen.pretrained import load

        model = load(name, revision)
        if not isinstance(model, cls):
            raise BadInput(f"{name} holds a {type(model).__name__}, not a {cls.__name__}; Model.from_pretrained and condgen.load take any")
        return model

    def push_to_hub(self, repo_id: str, private: bool = False, facts: Mapping[str, Any] | None = None) -> str:
        """Upload what `save_pretrained` writes; returns the address. Needs a token of the hub in the environment."""
        from condgen.pretrained import push

        return push(self, repo_id, private, {**self.facts, **(facts or {})})


class Sampler(Model):
    """A model that draws: `prior` gives latents, `decode` turns them into samples."""

    @abstractmethod
    def prior(self, n: int, c: Values) -> Tensor:
        """n latents (n, ...) for these conditions, on the model's device."""

    @abstractmethod
    def decode(self, z: Tensor, c: Values) -> Tensor:
        """Samples (n, *shape) of latents z under conditions c."""

    @torch.no_grad()
    def sample(self, c: Mapping[str, Any] | None = None, n: int | None = None, seed: int | None = None, chunk: int = 250) -> Tensor:
        """Samples (n, *shape); pictures lie in [-1, 1].

        Args:
            c: what is asked, by name: words ("7", "smile": 0.8), tensors (n, ...), or lists with one word a sample.
                What is left open is filled from rows of the training data, which the seed chooses.
            n: how many; by default as many as the longest list in `c`.
            seed: the same seed gives the same samples, on every device and in any `chunk`.
            chunk: how many are decoded at once, to bound memory.

        Raises:
            BadInput: for a name or a value the model does not know; the message names the valid ones.
        """
        require_whole("chunk", chunk, 1)
        values = {k: v.to(self.device) for k, v in self.completed(c, n, seed).items()}
        n = len(next(iter(values.values()))) if values else n or 1
        was, shard = self.training, (self.noise.rank, self.noise.world)
        self.eval()
        self.noise.rank, self.noise.world = 0, 1
        try:
            self.noise.seed(seed)
            z = self.prior(n, values)
            parts = [self.decode(z[i : i + chunk], {k: v[i : i + chunk] for k, v in values.items()}) for i in range(0, n, chunk)]
        finally:
            self.train(was)
            self.noise.rank, self.noise.world = shard
        return torch.cat(parts).float()


# --- capabilities: what the tools look for --------------------------------------------------------------------------------


@runtime_checkable
class Samples(Protocol):
    def prior(self, n: int, c: Values) -> Tensor: ...
    def decode(self, z: Tensor, c: Values) -> Tensor: ...
    def sample(self, c: Mapping[str, Any] | None = None, n: int | None = None, seed: int | None = None) -> Tensor: ...


@runtime_checkable
class Encodes(Protocol):
    def encode(self, x: Tensor, c: Values) -> Tensor:
        """The latent (b, ...) of x; a distribution's mean where the encoder is one."""


@runtime_checkable
class Decodes(Protocol):
    def decode(self, z: Tensor, c: Values) -> Tensor: ...


@runtime_checkable
class Weighs(Protocol):
    def log_weights(self, x: Tensor, c: Values, k: int) -> Tensor:
        """log p(x, z|c) - log q(z|x, c) for k draws of q, (k, b), in nats: their mean is the ELBO, their log-mean-exp the IWAE bound."""


@runtime_checkable
class Features(Protocol):
    def features(self, x: Tensor) -> Tensor:
        """What the model has learnt to see in samples (b, *shape): (b, d), for retrieval and classification."""


@runtime_checkable
class Classifies(Protocol):
    def classify(self, x: Tensor) -> Tensor:
        """Logits (b, k) of the classes of the model's one label, for samples (b, *shape)."""


@runtime_checkable
class Edits(Protocol):
    def edit(self, x: Tensor, c: Values) -> tuple[Tensor, Tensor]:
        """Samples x (b, *shape) changed so that conditions c hold, (b, *shape), and whether each was changed, bool (b,).

        What holds already is returned as it was given.
        """


CAPABILITIES: dict[str, type] = {
    "sample": Samples,
    "encode": Encodes,
    "decode": Decodes,
    "log_weights": Weighs,
    "features": Features,
    "classify": Classifies,
    "edit": Edits,
}


def capabilities(model: type[Model] | Model) -> list[str]:
    """Names of what the model can do besides being trained."""
    cls = model if isinstance(model, type) else type(model)
    return [name for name in CAPABILITIES if callable(getattr(cls, name, None))]


# --- runs -----------------------------------------------------------------------------------------------------------------


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
