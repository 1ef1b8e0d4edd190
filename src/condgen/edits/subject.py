"""Who is edited: a model, a person's files brought to its shape, their conditions and their latents."""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condgen import api
from condgen.conditions import Schema, Values, say
from condgen.data.store import Dataset
from condgen.drawing import read_words
from condgen.editing.inversion import Inverse, nearest_conditions
from condgen.editing.pictures import Given, read
from condgen.editing.space import Space, require
from condgen.editing.views import has_styles, own_space, told_in, view
from condgen.errors import BadInput
from condgen.figures.subject import pictures_of
from condgen.model import Model, Run, capabilities

log = logging.getLogger("condgen")
CANDIDATES = {True: 64, False: 512}
"""Rows of training conditions that are tried for what a person leaves open: more where one is a sample, and no encoding."""


@dataclass(frozen=True)
class Manner:
    """How an edit is made, whichever it is: seed, descent though there is an encoder, its steps, whether a film is wanted, and in which
    of `views.SPACES`; None for the model's own."""

    seed: int = 0
    invert: bool = False
    descent: int = 300
    film: bool = False
    space: str | None = None


class Subject:
    """Samples of a person's, as a model sees them.

    Args:
        name: of the run.
        model: trained; `self.model` is seen through the latents that are edited, `self.trained` as it is.
        given: what the files hold.
        asked: conditions by name, in words.
        manner: how the edit is made.
    """

    def __init__(self, name: str, model: Model, given: Sequence[Given], asked: Mapping[str, Any], manner: Manner):
        require(model, "decode")
        self.name, self.trained, self.model, self.manner = Path(name).name, model, view(model, manner.space), manner
        self.encodes = "encode" in capabilities(self.model) and not manner.invert
        self.space: Any = Space(self.model) if self.encodes else Inverse(self.model, steps=manner.descent, seed=manner.seed)
        self.c = _conditions(self.model, given, asked, manner.seed)
        self.given = [self._here(g, self.conditions(i)) for i, g in enumerate(given)]

    @property
    def latent_space(self) -> str:
        """Of `views.SPACES`: what the latents of this edit are."""
        return self.manner.space or own_space(self.trained)

    def _here(self, given: Given, c: Values) -> Given:
        """With its latent told in the space of this edit."""
        if given.z is None or given.space in (None, self.latent_space) or not has_styles(self.trained):
            return given
        try:
            return replace(given, z=told_in(self.trained, given.z[None], c, str(given.space), self.latent_space)[0])
        except BadInput as error:
            raise BadInput(f"{given.name}: {error}") from None

    def __len__(self) -> int:
        return len(self.given)

    @property
    def names(self) -> list[str]:
        return [g.name for g in self.given]

    def conditions(self, rows: int | slice | Sequence[int]) -> Values:
        """Of these samples; of one, a single row."""
        rows = slice(rows, rows + 1) if isinstance(rows, int) else rows
        return {k: v[rows] for k, v in self.c.items()}

    @cached_property
    def z(self) -> Tensor:
        """Latents (n, ...): those that came with the files, else encodings, or what a descent finds."""
        todo = [i for i, g in enumerate(self.given) if g.z is None]
        found = dict(zip(todo, self.latents(self.x_of(todo), self.conditions(todo)), strict=True)) if todo else {}
        latents = [g.z if g.z is not None else found[i] for i, g in enumerate(self.given)]
        if len({tuple(z.shape) for z in latents}) > 1:
            raise BadInput(
                "latents of different shapes: " + ", ".join(f"{n} {tuple(z.shape)}" for n, z in zip(self.names, latents, strict=True))
            )
        return torch.stack(latents)

    @cached_property
    def x(self) -> Tensor:
        """The samples (n, *shape); where a file holds a latent alone, what it decodes to."""
        return self.x_of(range(len(self)))

    def x_of(self, rows: Iterable[int]) -> Tensor:
        return torch.stack([x if (x := self.given[i].x) is not None else self._decoded(i) for i in rows])

    def _decoded(self, i: int) -> Tensor:
        z = self.given[i].z
        assert z is not None
        try:
            return self.space.decode(z[None], self.conditions(i))[0]
        except RuntimeError as error:  # of a shape that this decoder has no place for
            raise BadInput(f"{self.given[i].name}: z of shape {tuple(z.shape)} is no latent of {self.name}: {error}") from None

    def latents(self, x: Tensor, c: Values) -> Tensor:
        """Of samples (n, *shape): (n, ...). Says so where they are searched for."""
        if not self.encodes:
            why = "as you ask" if "encode" in capabilities(self.model) else f"{type(self.trained).__name__} has no encoder"
            log.info("%s: the latents of %d samples are found by descent, %d steps", why, len(x), self.manner.descent)
        return self.space.encode(x, c)

    def decode(self, z: Tensor, c: Values) -> Tensor:
        """Samples (n, *shape) of latents (n, ...) under n rows of conditions, or one for all."""
        return self.space.decode(z, c)

    @property
    def has_data(self) -> bool:
        """Whether it is known what the run trains on."""
        return "run" in self.model.facts

    def data(self) -> Dataset:
        """What the run trains on. Raises BadInput where that was not kept, or is not what the model knows."""
        if not self.has_data:
            raise BadInput(f"{self.name} does not say what it was trained on, which this edit is made from")
        return pictures_of(self.model, Run.from_json(self.model.facts["run"]))

    def steps(self, asked: int | None, picture: int, film: int) -> int:
        """How many pictures there are on a way: as asked, else what suits a picture, or a film."""
        return asked if asked is not None else film if self.manner.film else picture


def subject_of(run: str, files: Iterable[str | Path], asked: Sequence[str] | Mapping[str, Any], manner: Manner) -> Subject:
    """The trained model behind a name, and a person's files. Raises BadInput for what cannot be used."""
    model = api.load(run)
    words = asked if isinstance(asked, Mapping) else read_words(asked, model.schema)
    return Subject(str(run), model, read(model, files), words, manner)


# --- conditions -----------------------------------------------------------------------------------------------------------


def _conditions(model: Model, given: Sequence[Given], asked: Mapping[str, Any], seed: int) -> Values:
    """A row a sample: as asked, as the file says, else of the training row under which the model comes nearest to the sample."""
    if not model.schema:
        model.completed(asked, 1, seed)  # refuses what is asked of a model that reads nothing
        return {}
    rows = [_row(model, g, asked, seed) for g in given]
    return {name: torch.cat([row[name] for row in rows]) for name in model.schema}


def _row(model: Model, given: Given, asked: Mapping[str, Any], seed: int) -> Values:
    known = {**{k: v[0] for k, v in given.c.items()}, **asked}
    candidates = model.completed(known, CANDIDATES["encode" in capabilities(model)], seed)
    loose = [k for k, v in candidates.items() if not torch.equal(v, v[:1].expand_as(v))]
    if not loose:
        return {k: v[:1] for k, v in candidates.items()}
    at = 0 if given.x is None else int(nearest_conditions(model, given.x[None], candidates, seed)[0])
    row = {k: v[at : at + 1] for k, v in candidates.items()}
    log.info("%s: not said, so as in a training row that suits: %s", given.name, ", ".join(f"{k}={_short(model, k, row)}" for k in loose))
    return row


def _short(model: Model, name: str, row: Values) -> str:
    word = say(model.schema[name], row[name][0])
    return word if len(word) <= 40 else f"{word[:37]}..."


def mixed(schema: Schema, c: Values, weights: Tensor) -> Values:
    """Conditions between k rows: numbers are averaged by weights (m, k), labels and texts are those of the largest weight; (m, ...)."""
    heaviest = weights.argmax(1)
    total = weights / weights.sum(1, keepdim=True)
    return {
        name: torch.tensordot(total.to(c[name].dtype), c[name], 1) if c[name].is_floating_point() else c[name][heaviest] for name in schema
    }
