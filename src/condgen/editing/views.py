"""A style-based model seen through another of its latents, and layers of one picture put into another.

    z ~ N(0, I)  ->  w = f(z), truncated  ->  w+ = one w for each layer  ->  synthesis

Karras, Laine & Aila 2019, arXiv 1812.04948: styles are mixed by giving some layers another w, and w' = mean + psi (w - mean).
Abdal, Qin & Wonka 2019, arXiv 1904.03189, gave the space of one w a layer its name, w+. A view is a `Sampler` like any other, so that
inversion, attribute vectors, walks and grids work in w and in w+ as they do in z. The weights are the model's own.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from torch import Tensor

from condgen.conditions import Values
from condgen.data.store import Batch, Dataset
from condgen.editing.space import at_rest, require
from condgen.errors import BadInput, require_range, require_whole, unknown
from condgen.model import Model, Sampler, Turn, capabilities
from condgen.styled import bounded, swapped

SPACES = ("z", "w", "w+")
"""From the prior to the pictures. What lies in one can be told in those after it (`lift`), and not the other way."""
BANDS = ("coarse", "middle", "fine")
COARSE_PX, MIDDLE_PX = 8, 32
"""The largest sides of coarse and of middle layers: Karras et al., figure 3, for pictures of 1024 px."""


def has_styles(model: Model) -> bool:
    return "synthesis" in capabilities(model)


def require_styles(model: Model, what: str) -> None:
    """Raises BadInput where `what` asks for styles that the model has not."""
    require(model, "synthesis", why=f"{what} needs styles")


def own_space(model: Model) -> str:
    """What the model's own `prior` and `decode` call a latent: "w" where an encoder gives it (ALAE), else "z"."""
    return "w" if has_styles(model) and "encode" in capabilities(model) else "z"


# --- views ----------------------------------------------------------------------------------------------------------------


class View(Sampler):
    """A trained model seen through another latent: `prior` and `decode` are of that; conditions, noise and weights are the model's.

    Only the mapping and the truncation read conditions: `decode` of w and of w+ leaves them aside.

    Args:
        model: with the capability "synthesis".
    """

    space: ClassVar[str]
    """Of `SPACES`."""

    def __init__(self, model: Any):
        super().__init__(model.shape, model.schema)
        self.model = model
        self.noise, self.facts, self.rows = model.noise, model.facts, model.rows
        self.train(model.training)

    def turns(self, batch: Batch, step: int) -> Iterator[Turn]:
        raise BadInput(f"a view is not trained: train the {type(self.model).__name__} itself")

    def reads(self, data: Dataset) -> Dataset:
        return self.model.reads(data)

    def prior(self, n: int, c: Values) -> Tensor:
        return lifted(self.model, self.model.z_prior(n), c, "z", self.space)

    def decode(self, z: Tensor, c: Values) -> Tensor:
        """Samples (b, *shape), pictures in [-1, 1]. Raises BadInput for latents of another shape."""
        wanted = (len(self.model.layer_sides),) if self.space == "w+" else ()
        if z.dim() != 2 + len(wanted) or tuple(z.shape[1:-1]) != wanted:
            raise BadInput(f"latents of shape {tuple(z.shape)}; in {self.space} they are ({', '.join(['b', *map(str, wanted), 'd'])})")
        return bounded(self.model.synthesis(lifted(self.model, z, c, "z", "w+") if self.space == "z" else z))


class InZ(View):
    """Latents (b, z_dim) of a model whose own are w."""

    space = "z"


class InW(View):
    """Latents (b, w_dim) of a model whose own are z."""

    space, walk = "w", "lerp"


class InWPlus(View):
    """Latents (b, layers, w_dim), one w for each layer. Those of the prior are the same w in all."""

    space, walk = "w+", "lerp"


class EncodedInWPlus(InWPlus):
    """The same of a model with an encoder, whose w stands in every layer."""

    def encode(self, x: Tensor, c: Values) -> Tensor:
        return lifted(self.model, self.model.encode(x, c), c, "w", "w+")


def view(model: Model, space: str | None) -> Model:
    """The model seen through latents of `space`: itself, where those are its own.

    Args:
        model: trained. One without styles has no other space than "z", which is then whatever its latents are called.
        space: one of `SPACES`; None for the model's own.

    Raises:
        BadInput: for another name, or a model without styles.
    """
    model = model.model if isinstance(model, View) else model
    if space is not None and space not in SPACES:
        raise unknown("space", space, SPACES)
    if space in (None, own_space(model)):
        return model
    require_styles(model, f"the space {space}")
    if space == "w+":
        return EncodedInWPlus(model) if "encode" in capabilities(model) else InWPlus(model)
    return InW(model) if space == "w" else InZ(model)


def lifted(model: Any, z: Tensor, c: Values, have: str, want: str) -> Tensor:
    """Latents of one space told in another, nearer to the pictures: what is drawn stays the same.

    Args:
        model: with styles, not a view of it.
        z: (b, d), or (b, layers, d) in w+; on the model's device.
        c: conditions of each row, which the mapping reads.
        have, want: of `SPACES`.

    Raises:
        BadInput: for the way back, which there is none; for w of a model whose first layers alone are truncated.
    """
    if SPACES.index(have) > SPACES.index(want):
        raise BadInput(f"latents of {have} cannot be told in {want}, only the other way; edit them in {have} (--space {have})")
    if have == "z" != want:
        if want == "w" and model.psi_layers is not None:
            raise BadInput(f"truncated in {model.psi_layers} layers alone, a sample has several w, which w cannot tell: choose w+")
        z = model.truncate(model.mapping(z, c), c, model.psi, model.psi_layers)
    return z[:, None].repeat(1, len(model.layer_sides), 1) if have != want == "w+" and z.dim() == 2 else z


def told_in(model: Any, z: Tensor, c: Values, have: str, want: str) -> Tensor:
    """`lifted`, from the CPU and back to it, in eval mode."""
    with at_rest(model):
        return lifted(model, z.to(model.device), {k: v.to(model.device) for k, v in c.items()}, have, want).float().cpu()


def truncate_by(model: Any, psi: float, layers: int | None = None) -> None:
    """From now on the model's samples are truncated: w' = mean + psi (w - mean); 1 is none, 0 draws the mean, below 0 its other side.

    Args:
        model: with styles; not a view of it.
        psi: from -10 to 10.
        layers: only so many, from the first; None for all. A model whose own latents are w then draws in the view "w+" alone.

    Raises:
        BadInput: for a model without styles, or a number out of range.
    """
    require_styles(model, "truncation (--psi)")
    require_range(-10, 10, **{"--psi": psi})
    if layers is not None:
        require_whole("--psi-layers", layers, 0, len(model.layer_sides))
    model.psi, model.psi_layers = psi, layers


def truncated_view(model: Model) -> Model:
    """The model seen through latents that are truncated already, so that they draw the same whatever psi becomes; where it is 1, itself."""
    if not has_styles(model):
        return model
    of: Any = model
    return view(model, None if of.psi == 1.0 else "w" if of.psi_layers is None else "w+")


# --- layers ---------------------------------------------------------------------------------------------------------------


def bands(sides: Sequence[int]) -> dict[str, list[int]]:
    """Which layers are coarse, middle and fine; a band that a small picture has no layer for is left out.

    Above 32 px as in the paper: coarse up to 8 px, middle up to 32 px, fine above. For smaller pictures the largest side is fine, the one
    before it middle, the rest coarse.

    Args:
        sides: height in px of each layer, as of `Styles.layer_sides`.

    >>> bands((4, 4, 8, 8, 16, 16, 32, 32))
    {'coarse': [0, 1, 2, 3], 'middle': [4, 5], 'fine': [6, 7]}
    """
    levels = [0, 0, *sorted(set(sides))]
    coarse, middle = (COARSE_PX, MIDDLE_PX) if levels[-1] > MIDDLE_PX else levels[-3:-1]
    found: dict[str, list[int]] = {name: [] for name in BANDS}
    for i, side in enumerate(sides):
        found["coarse" if side <= coarse else "middle" if side <= middle else "fine"].append(i)
    return {name: layers for name, layers in found.items() if layers}


def layers_of(sides: Sequence[int], word: str) -> list[int]:
    """A band's name, numbers and ranges as layers, counted from 0. Raises BadInput for a layer that there is not.

    >>> layers_of((4, 4, 8, 8), "fine"), layers_of((4, 4, 8, 8), "0,2-3")
    ([2, 3], [0, 2, 3])
    """
    known = bands(sides)
    if word in known:
        return known[word]
    found: set[int] = set()
    for part in word.split(","):
        ends = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", part.strip())
        first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (1, 0)
        if not first <= last < len(sides):
            raise BadInput(f"--layers {word}: expected {', '.join(known)}, or numbers such as 0 or 0-3, from 0 to {len(sides) - 1}")
        found |= set(range(first, last + 1))
    return sorted(found)


def crossed(sources: Tensor, styles: Tensor, layers: Sequence[int]) -> Tensor:
    """Each source with the named layers of each style.

    Args:
        sources: (s, layers, d) of w+; they give all other layers.
        styles: (t, layers, d) of w+.
        layers: indices.

    Returns:
        (s, t, layers, d).
    """
    return swapped(sources[:, None], styles[None], layers)


def told(layers: Sequence[int]) -> str:
    """In words.

    >>> told([0, 1, 2, 5])
    '0-2, 5'
    """
    runs: list[list[int]] = []
    for i in layers:
        if runs and i == runs[-1][1] + 1:
            runs[-1][1] = i
        else:
            runs.append([i, i])
    return ", ".join(f"{a}-{b}" if a < b else f"{a}" for a, b in runs)
