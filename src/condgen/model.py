"""The contract of a model.

A model is one paper: its nets, its objectives and its algorithm, told as *turns*. It names its *players* (who is trained)
and never sees an optimiser; the loop in `training` knows players and never a paper. What else a model can do (sample,
encode, decode, weigh a likelihood, see features) is a *capability*: a protocol that every tool discovers by itself.
"""

import inspect
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from condgen.asking import complete
from condgen.conditions import Label, Schema, Values
from condgen.data.store import Batch, Dataset
from condgen.errors import BadInput, require_whole
from condgen.run import Optimizer as Optimizer
from condgen.run import Run as Run

Shape = tuple[int, ...]
Turn = dict[str, dict[str, Tensor]]
"""player -> term -> one value per sample. The loop descends the mean of each player's sum of terms.

Players that are given one and the same dict, not an equal one, are moved by a single pass backwards.
"""


APART = 0x5EED0000
"""Between a person's seed and that of noise."""


class Noise:
    """Standard noise for the joint batch, of which this process keeps its own rows.

    Drawn on the CPU from a generator of its own, so that one process and several, and every kind of device, see the same numbers.
    """

    def __init__(self) -> None:
        self.generator = torch.Generator()
        self.rank, self.world = 0, 1

    def seed(self, seed: int | None) -> None:
        """The same numbers again for the same seed; None for new ones.

        They are none of those that `torch.manual_seed(seed)` starts with: of these, weights were made, and a latent that is a row
        of the first weights meets its own neuron even after training.
        """
        self.generator.manual_seed(secrets.randbits(48) if seed is None else seed ^ APART)

    def normal(self, n: int, *shape: int) -> Tensor:
        """N(0, 1), float32 (n, *shape)."""
        return self._own(torch.randn(n * self.world, *shape, generator=self.generator))

    def uniform(self, n: int, *shape: int) -> Tensor:
        """U(0, 1), float32 (n, *shape)."""
        return self._own(torch.rand(n * self.world, *shape, generator=self.generator))

    def shared(self) -> Tensor:
        """U(0, 1), float32 (1,): the same on every process, for what is decided once for the joint batch."""
        return torch.rand(1, generator=self.generator)

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

    unaveraged: ClassVar[tuple[str, ...]] = ()
    """Attributes that a moving average of the weights copies as they are."""

    evenly: ClassVar[str | None] = None
    """Name of a Label of which each batch, and each part of one, holds as many of every name, in turn; None for rows as they come."""

    channels_last: ClassVar[bool] = True
    """Whether it trains faster with channels last: not where instance norms lay every picture out anew."""

    walk: ClassVar[str] = "slerp"
    """How one goes from latent to latent: "slerp" for a normal prior, "uniform" for U(-1, 1), "lerp" where there is none."""

    options: dict[str, Any]
    """What the constructor was given besides shape and schema: with these two, enough to build the model again."""

    facts: dict[str, Any]
    """What a loaded model's run is known to have been: "run", "data", "step", "seconds", as far as they were kept; else empty."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Model":
        self = super().__new__(cls)
        # Nothing is given to a copy, which brings its own options.
        given = inspect.signature(cls.__init__).bind(self, *args, **kwargs).arguments if args or kwargs else {}
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

    def after_step(self, joint: Callable[[Tensor], Tensor]) -> None:
        """Called after every step: for what a model carries on besides its weights, in buffers. `joint` lays the rows (b, ...) of all
        processes end to end."""

    def reads(self, data: Dataset) -> Dataset:
        """The data with whatever conditions the model makes of samples by itself; by default, as they are."""
        return data

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

    def shows(self, x: Tensor, c: Values) -> Tensor:
        """Whether the model sees conditions c in samples x, bool (b,)."""


@runtime_checkable
class Translates(Protocol):
    def translate(self, x: Tensor, c: Values) -> Tensor:
        """Pictures x (b, *shape) of either domain, drawn in the domain that c["domain"] names, int64 (b,): (b, *shape)."""


@runtime_checkable
class Styles(Protocol):
    """A model that maps z to an intermediate latent w, and draws w layer by layer: see `styled.Styled`."""

    psi: float
    psi_layers: int | None

    def z_prior(self, n: int) -> Tensor: ...
    def mapping(self, z: Tensor, c: Values) -> Tensor: ...
    def synthesis(self, w: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor: ...
    def draw_noise(self, n: int) -> list[Tensor]: ...
    def truncate(self, w: Tensor, c: Values, psi: float, layers: int | None = None) -> Tensor: ...
    @property
    def layer_sides(self) -> tuple[int, ...]: ...


CAPABILITIES: dict[str, type] = {
    "sample": Samples,
    "encode": Encodes,
    "decode": Decodes,
    "log_weights": Weighs,
    "features": Features,
    "classify": Classifies,
    "edit": Edits,
    "translate": Translates,
    "synthesis": Styles,
}


def capabilities(model: type[Model] | Model) -> list[str]:
    """Names of what the model can do besides being trained."""
    cls = model if isinstance(model, type) else type(model)
    return [name for name in CAPABILITIES if callable(getattr(cls, name, None))]


def domain_of(model: Model) -> tuple[str, Label]:
    """The label that names the domains: the model's `domain`, else its first. Raises BadInput where it has none."""
    for name in ("domain", *model.schema):
        if isinstance(label := model.schema.get(name), Label):
            return name, label
    raise BadInput(f"{type(model).__name__} reads no label that would name domains")
