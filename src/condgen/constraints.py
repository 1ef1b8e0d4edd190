"""Constraints: what a sample should obey, said as an energy that is 0 where it holds. No labels, no networks.

    E(x) >= 0,    E(x) = 0  where the constraint holds

A constraint reads finished samples (b, *shape), pictures in [-1, 1]. Where its energy has a gradient a latent can descend it through a
decoder; where it has none (a user's own function), a critic learns from samples where it holds (`editing.constraints.latent_critic`).
"""

import importlib.util
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from condgen.errors import BadInput, require_range, unknown

PATTERN = re.compile(r"\s*(?P<subject>.+?)\s*(?:(?P<sign>>=|<=)\s*(?P<bound>[^<>=]+?)\s*)?")
EXAMPLES = "'ink>=0.3', 'ink<=0.1' or 'file.py:function>=0.5'"
RULES = ("ink",)
"""Subjects that `parse` knows by name."""
TRUE = 0.5
"""A function that answers True or False, or 0 or 1, holds from here on."""


@runtime_checkable
class Constraint(Protocol):
    def energy(self, x: Tensor) -> Tensor:
        """How far each of the samples (b, *shape) is from obeying: (b,), at least 0, and 0 where it obeys."""


def holds(constraint: Constraint, x: Tensor) -> Tensor:
    """Which samples (b, *shape) obey, bool (b,). Raises BadInput where the energy is no finite number a sample."""
    return checked(constraint, x) <= 0


def checked(constraint: Constraint, x: Tensor) -> Tensor:
    """The energies of samples (b, *shape), (b,). Raises BadInput for a wrong shape, or values that are negative or not finite."""
    energy = constraint.energy(x)
    if not isinstance(energy, Tensor) or energy.shape != (len(x),):
        got = tuple(energy.shape) if isinstance(energy, Tensor) else type(energy).__name__
        raise BadInput(f"the energy of {constraint} is {got} for {len(x)} samples; expected a tensor ({len(x)},)")
    if not bool((energy >= 0).all() & energy.isfinite().all()):
        worst = float(energy.detach().nan_to_num(-1.0, -1.0, -1.0).min())
        raise BadInput(f"the energy of {constraint} is not finite, or below 0 (least: {worst:g}); expected finite numbers of at least 0")
    return energy


@dataclass(frozen=True)
class Ink:
    """The share of ink, mean of (x + 1) / 2 over the sample, from `least` to `most`.

    Raises:
        BadInput: for bounds outside of [0, 1], or `least` above `most`.
    """

    least: float = 0.0
    most: float = 1.0

    def __post_init__(self) -> None:
        require_range(0, 1, least=self.least, most=self.most)
        if self.least > self.most:
            raise BadInput(f"at least {self.least:g} and at most {self.most:g} of ink: no picture has both")

    def energy(self, x: Tensor) -> Tensor:
        amount = ink(x)
        return (self.least - amount).clamp(min=0) + (amount - self.most).clamp(min=0)


def ink(x: Tensor) -> Tensor:
    """The share of ink of samples (b, *shape) in [-1, 1]: (b,), 0 for an empty sheet, 1 for a full one."""
    return ((x.float() + 1) / 2).flatten(1).mean(1)


@dataclass(frozen=True)
class Near:
    """No farther than `within` from a picture, as the root of the mean squared difference of pixels in [-1, 1].

    Args:
        picture: (*shape).
        within: how far is still near; a black and a white picture are 2 apart.
    """

    picture: Tensor
    within: float = 0.2

    def __post_init__(self) -> None:
        require_range(0, 2, within=self.within)

    def energy(self, x: Tensor) -> Tensor:
        if x.shape[1:] != self.picture.shape:
            raise BadInput(f"samples of shape {tuple(x.shape[1:])} beside a picture of {tuple(self.picture.shape)}")
        squared = (x.float() - self.picture.to(x)).square().flatten(1).mean(1)
        return (squared.clamp(min=1e-12).sqrt() - self.within).clamp(min=0)  # the root has no gradient at 0


@dataclass(frozen=True)
class Reward:
    """A function of a user's own is at least `least`. It may be any Python, with a gradient or without.

    Args:
        function: samples (b, *shape) in [-1, 1] -> (b,) numbers or truths; with `each`, one sample (*shape) -> one number.
        least: from where on the constraint holds.
        each: whether the function reads one sample at a time.
    """

    function: Callable[[Any], Any]
    least: float = TRUE
    each: bool = False

    def energy(self, x: Tensor) -> Tensor:
        return (self.least - self.reward(x)).clamp(min=0)

    def reward(self, x: Tensor) -> Tensor:
        """What the function says of samples, float32 (b,). Raises BadInput where that is not one number a sample."""
        said = [self.function(sample) for sample in x] if self.each else self.function(x)
        try:
            values = _tensor(said).to(x.device).float()
        except (TypeError, ValueError, RuntimeError):
            raise BadInput(f"{self} answers {said!r:.60}; expected numbers") from None
        if values.shape != (len(x),):
            how = "Reward(..., each=True) where it reads one sample" if not self.each else "one number for each sample"
            raise BadInput(f"{self} answers {tuple(values.shape)} for {len(x)} samples; expected ({len(x)},): {how}")
        return values

    def __str__(self) -> str:
        return f"the function {getattr(self.function, '__name__', 'without a name')!r}"


def _tensor(said: Any) -> Tensor:
    if isinstance(said, Sequence) and said and all(isinstance(s, Tensor) for s in said):
        return torch.stack([s.reshape(()) for s in said])
    return torch.as_tensor(said)


@dataclass(frozen=True)
class All:
    """Several constraints at once: their energies add up."""

    parts: tuple[Constraint, ...]

    def energy(self, x: Tensor) -> Tensor:
        return torch.stack([checked(part, x) for part in self.parts]).sum(0)


def parse(text: str, files: bool = False) -> Constraint:
    """The constraint that a person wrote: "ink>=0.3", "ink<=0.1", and where `files` allows it "file.py:function>=0.5".

    A function is a `Reward`: it holds where its answer is at least the bound, or at most, or is true where no bound is written.

    Args:
        text: subject, sign and bound; several, joined by commas, must all hold.
        files: whether a user's own file may be run. Never set it for a text that came with somebody else's model.

    Raises:
        BadInput: for a subject that is unknown, a bound that is no number, or a file or function that is not there.
    """
    parts = tuple(_parse_one(part, files) for part in str(text).split(","))
    return parts[0] if len(parts) == 1 else All(parts)


def _parse_one(text: str, files: bool) -> Constraint:
    found = PATTERN.fullmatch(text)
    if not found:
        raise BadInput(f"the constraint {text!r} cannot be read; write {EXAMPLES}")
    subject, sign, bound = found["subject"], found["sign"], found["bound"]
    if ":" in subject or subject.endswith(".py"):
        if not files:
            raise BadInput(f"the constraint {text!r} would run a file; here only rules are read: {', '.join(RULES)} (such as 'ink>=0.3')")
        return _reward(load_function(subject), sign, None if bound is None else _number(bound, text))
    if subject not in RULES:
        if re.search(r"[<>=]", subject):
            raise BadInput(f"the constraint {text!r} cannot be read; write {EXAMPLES}")
        raise unknown("constraint", subject, RULES)
    if sign is None:
        raise BadInput(f"the constraint {text!r} has no bound; write {EXAMPLES}")
    value = _number(bound, text)
    return Ink(least=value) if sign == ">=" else Ink(most=value)


def _reward(function: Callable[[Any], Any], sign: str | None, bound: float | None) -> Reward:
    if sign != "<=" or bound is None:
        return Reward(function, TRUE if bound is None else bound)

    def turned(x: Tensor) -> Tensor:
        return -_tensor(function(x)).to(x.device).float()

    turned.__name__ = getattr(function, "__name__", "function")
    return Reward(turned, -bound)


def _number(word: str, text: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = float("nan")
    if not abs(value) < float("inf"):
        raise BadInput(f"the bound {word!r} of {text!r} is no number; write {EXAMPLES}")
    return value


def load_function(place: str) -> Callable[[Any], Any]:
    """The function behind "file.py:function". The file is run: it must be the user's own. Raises BadInput where there is none."""
    file, _, name = place.rpartition(":")
    if not file or not name.isidentifier():
        raise BadInput(f"{place!r} names no function; write file.py:function")
    path = Path(file)
    if path.suffix != ".py" or not path.is_file():
        raise BadInput(f"there is no Python file {file}")
    spec = importlib.util.spec_from_file_location(f"condgen_user_{path.stem}", path)
    assert spec and spec.loader  # of any .py file
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # whatever a user's own code may raise
        raise BadInput(f"{file} cannot be run: {type(error).__name__}: {error}") from error
    own = {k: v for k, v in vars(module).items() if callable(v) and not k.startswith("_")}
    if name not in own:
        raise unknown(f"function of {file}", name, own)
    return own[name]
