"""Attribute vectors: which way a smile lies, without the sex that goes with it in the data, and what the way back reads.

    v = mean(z | attribute) - mean(z | not)            z + k v moves it, s(x) = v . enc(x) reads it ("AtDot")

White 2016, arXiv 1609.04468. Where attributes are correlated in the data, v carries the others along. The correction is his balanced
replication: the rows fall into all 2^n cells of n attributes, and each cell is repeated to the size of the largest. Means over rows so
repeated are the equally averaged means of the cells, so here they are *weights*, and nothing is copied.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from condgen.conditions import Attributes
from condgen.errors import BadInput, require_positive, unknown

COLLAPSED = 1e-6
"""Share of the largest variance below which a direction of the latents counts as constant where they are whitened."""
METHODS = ("mean", "svm")
CUTS = ("half", "median")


@dataclass(frozen=True, eq=False)
class AttributeVector:
    """One attribute in one model's latent space.

    Args:
        name: of the attribute.
        direction: (*latent), from the mean without to the mean with it: what `shift` adds.
        threshold: of the score `atdot`: above it the attribute is taken to be there.
        method: how it was made: "mean", "svm", or the name of a distortion; "... balanced by a, b" where it was.
        n: rows that it was made of.
        reader: (*latent), whose product with a latent is the score: the direction itself, or what whitening makes of it.
    """

    name: str
    direction: Tensor
    threshold: float
    method: str
    n: int
    reader: Tensor


# --- who has what ---------------------------------------------------------------------------------------------------------


def cuts_of(values: Tensor, condition: Attributes, threshold: str = "half") -> Tensor:
    """Above which value (k,) each attribute is taken to be there.

    Args:
        values: (n, k) of the condition; NaN where one is not known.
        threshold: "half" of the way from its lowest to its highest value, for probabilities and for 0 and 1; "median" of the known
            rows, for numbers without a natural half.

    Raises:
        BadInput: for values that are not the condition's, or another threshold.
    """
    if values.dim() != 2 or values.shape[1] != len(condition.names):
        raise BadInput(f"values of shape {tuple(values.shape)} for {len(condition.names)} attributes; expected (n, {len(condition.names)})")
    if threshold not in CUTS:
        raise unknown("threshold", threshold, CUTS)
    if threshold == "median":
        return values.nanmedian(0).values
    return (values.new_tensor(condition.low) + values.new_tensor(condition.high)) / 2


def flags_of(values: Tensor, condition: Attributes, threshold: str = "half") -> Tensor:
    """Which rows have which attributes: bool (n, k). Arguments as of `cuts_of`.

    Raises:
        BadInput: as `cuts_of`, and for a value that is not known: leave its row out, or the attribute.
    """
    cuts = cuts_of(values, condition, threshold)
    for row, k in values.isnan().nonzero()[:1].tolist():
        raise BadInput(f"attribute {condition.names[k]!r} of row {row} is not known (NaN): leave the row or the attribute out")
    return values > cuts


def balanced_weights(flags: Tensor, names: Sequence[str] = ()) -> Tensor:
    """Weights float64 (n,), of sum 1, under which every combination of k attributes counts the same.

    Args:
        flags: bool (n, k), who has which.
        names: of the attributes, for the message.

    Raises:
        BadInput: where no row has one of the combinations, which it names. Leaving it out would bring back what is corrected.

    >>> balanced_weights(torch.tensor([[True], [True], [True], [False]])).tolist()
    [0.16666666666666666, 0.16666666666666666, 0.16666666666666666, 0.5]
    """
    _require_flags(flags, 2)
    k = flags.shape[1]
    if k > math.log2(max(len(flags), 1)):
        raise BadInput(f"{len(flags)} rows cannot fill the 2^{k} combinations of {k} attributes: balance by fewer")
    cell = (flags.long() * 2 ** torch.arange(k)).sum(1)
    counts = cell.bincount(minlength=2**k)
    if len(empty := (counts == 0).nonzero().flatten()):
        raise BadInput(f"no row has {_combination(int(empty[0]), names or range(k))}: nothing can be balanced by it; take other attributes")
    return 1 / (2**k * counts[cell].double())


def _combination(cell: int, names: Sequence[object]) -> str:
    """In words.

    >>> _combination(2, ["male", "smiling"])
    'not male and smiling'
    """
    return " and ".join(f"{'' if cell >> i & 1 else 'not '}{name}" for i, name in enumerate(names))


def _require_flags(flags: Tensor, dim: int) -> None:
    if flags.dtype != torch.bool or flags.dim() != dim:
        raise BadInput(f"flags of shape {tuple(flags.shape)}, {flags.dtype}; expected bool {'(n,)' if dim == 1 else '(n, k)'}")


# --- vectors --------------------------------------------------------------------------------------------------------------


def mean_difference(z: Tensor, has: Tensor, weights: Tensor | None = None) -> Tensor:
    """The weighted mean of the latents with the attribute, less that of those without.

    Args:
        z: (n, *latent).
        has: bool (n,).
        weights: (n,), at least 0, of any sum; None for all alike.

    Returns:
        (*latent), in the type of z.

    Raises:
        BadInput: where all rows have it or none has, and for shapes that do not fit.
    """
    w = _weights(z, has, weights)
    with_it, without = (_mean(z, torch.where(some, w, 0.0)) for some in (has, ~has))
    return (with_it - without).to(z.dtype).reshape(z.shape[1:])


def _mean(z: Tensor, weights: Tensor) -> Tensor:
    return weights @ z.flatten(1).double() / weights.sum()


def _weights(z: Tensor, has: Tensor, weights: Tensor | None) -> Tensor:
    """float64 (n,), checked."""
    _require_flags(has, 1)
    w = torch.ones(len(has), dtype=torch.float64) if weights is None else weights.double()
    if z.dim() < 2 or not len(z) == len(has) == len(w) or w.dim() != 1:
        raise BadInput(f"latents {tuple(z.shape)} for {len(has)} flags and {len(w)} weights: expected (n, d) and one each")
    if not bool((w >= 0).all()) or not (w[has].sum() > 0 and w[~has].sum() > 0):
        raise BadInput(
            f"{int(has.sum())} of {len(has)} rows have the attribute: a vector needs some with it and some without, of weights above 0"
        )
    return w


def svm_vector(z: Tensor, has: Tensor, weights: Tensor | None = None, C: float = 1.0) -> Tensor:
    """The normal of a linear support vector machine, as long as the mean difference. Arguments, answer and errors as of that.

    It looks at the rows that are hard to tell apart, where the mean difference looks at all.

    Args:
        C: weight of the errors against the margin; 1 as in White's code.
    """
    from sklearn.svm import LinearSVC

    require_positive(C=C)
    w = _weights(z, has, weights)
    length = mean_difference(z, has, weights).double().norm()
    machine = LinearSVC(C=C, dual=False, max_iter=10_000, random_state=0)
    machine.fit(z.flatten(1).double().numpy(), has.numpy(), sample_weight=(w * len(w) / w.sum()).numpy())
    normal = torch.from_numpy(machine.coef_[0]).double()
    return (normal * (length / normal.norm())).to(z.dtype).reshape(z.shape[1:])


def attribute_vectors(
    z: Tensor, flags: Tensor, names: Sequence[str], balance: Sequence[str] = (), method: str = "mean", whiten: bool = False
) -> dict[str, AttributeVector]:
    """A vector for each attribute, with the threshold that reads it best on these rows.

    Args:
        z: (n, *latent), encodings.
        flags: bool (n, k), who has which attribute.
        names: of the k attributes.
        balance: attributes whose combinations, together with the one in question, are to count the same: `balanced_weights`.
        method: "mean" for the mean difference, "svm" for the normal of a support vector machine.
        whiten: read by the direction in whitened latents (Fisher's discriminant), for encodings a few of whose dimensions are so
            wide that they decide every product. What `shift` adds stays the same.

    Returns:
        name -> vector.

    Raises:
        BadInput: for an unknown name or method, an attribute that all rows have or none has, an empty combination.
    """
    _require_flags(flags, 2)
    names = list(names)
    if flags.shape[1] != len(names):
        raise BadInput(f"flags of {flags.shape[1]} attributes for {len(names)} names")
    for name in balance:
        if name not in names:
            raise unknown("attribute", name, names)
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    make = mean_difference if method == "mean" else svm_vector
    said = method + (f" balanced by {', '.join(balance)}" if balance else "")
    found = {}
    for k, name in enumerate(names):
        direction = make(z, flags[:, k], _balanced(flags, names, {*balance, name}) if balance else None)
        found[name] = vector_of(name, direction, z, flags[:, k], said, whiten)
    return found


def _balanced(flags: Tensor, names: list[str], by: set[str]) -> Tensor:
    columns = [k for k, name in enumerate(names) if name in by]
    return balanced_weights(flags[:, columns], [names[k] for k in columns])


def vector_of(name: str, direction: Tensor, z: Tensor, has: Tensor, method: str, whiten: bool = False) -> AttributeVector:
    """A direction with its reader, and the threshold that reads it best on rows z with flags `has` (n,)."""
    reader = whitened(direction, z) if whiten else direction
    return AttributeVector(name, direction, best_threshold(atdot(z, reader), has), method, len(z), reader)


def whitened(direction: Tensor, z: Tensor) -> Tensor:
    """S^-1 v of a direction (*latent), S the covariance of latents (n, *latent): the product in whitened latents, as a vector."""
    x = z.flatten(1).double()
    inverse = torch.linalg.pinv(torch.cov(x.T).reshape(x.shape[1], -1), rtol=COLLAPSED, hermitian=True)
    return (inverse @ direction.flatten().double()).to(direction.dtype).reshape(direction.shape)


def shift(z: Tensor, v: AttributeVector | Tensor, amount: float | Tensor = 1.0, renorm: bool = False) -> Tensor:
    """Latents moved along an attribute: z + amount v.

    Args:
        z: (b, *latent).
        v: a vector, or its direction (*latent).
        amount: 1 is the way from the mean without to the mean with it; negative takes it away. A number, or (b,).
        renorm: bring each back to its own norm, where a large amount leaves the sphere of the prior.

    Raises:
        BadInput: for a direction of another shape, or amounts that are neither.
    """
    direction = _direction(v, z)
    k = torch.as_tensor(amount, dtype=torch.float64)
    if k.dim() > 1 or (k.dim() == 1 and len(k) != len(z)) or not bool(k.isfinite().all()):
        raise BadInput(f"an amount of shape {tuple(k.shape)} for {len(z)} latents; expected a finite number, or one each")
    rows = z.flatten(1).double()
    moved = rows + k.reshape(-1, 1) * direction.flatten().double()
    if renorm:
        moved = moved * (rows.norm(dim=1) / moved.norm(dim=1).clamp(min=torch.finfo(moved.dtype).tiny))[:, None]
    return moved.to(z.dtype).reshape(z.shape)


def _direction(v: AttributeVector | Tensor, z: Tensor) -> Tensor:
    direction = v.direction if isinstance(v, AttributeVector) else v
    if direction.shape != z.shape[1:]:
        raise BadInput(f"a vector of shape {tuple(direction.shape)} for latents {tuple(z.shape)}; expected {tuple(z.shape[1:])}")
    return direction


# --- reading --------------------------------------------------------------------------------------------------------------


def atdot(z: Tensor, v: AttributeVector | Tensor) -> Tensor:
    """Scores float64 (n,) of latents (n, *latent): the product with the vector's reader, or with a direction that is given."""
    reader = v.reader if isinstance(v, AttributeVector) else v
    return z.flatten(1).double() @ _direction(reader, z).flatten().double()


class Roc(NamedTuple):
    """Shares of negatives and of positives at or above each score, from none to all: float64 (k + 1,); the area under the curve,
    equal scores counted half; and its standard error."""

    fpr: Tensor
    tpr: Tensor
    auc: float
    standard_error: float


def roc(scores: Tensor, has: Tensor) -> Roc:
    """How well scores (n,) tell rows that have an attribute, bool (n,), from those that have not.

    The area is the chance that one with it scores above one without (Mann & Whitney), its standard error DeLong's.

    Raises:
        BadInput: where there are none of one kind, and for scores that are not finite.
    """
    _require_scores(scores, has)
    _, level = scores.double().unique(return_inverse=True)  # upwards; equal scores share a level
    levels = int(level.max()) + 1
    positive, negative = (level[some].bincount(minlength=levels).double() for some in (has, ~has))
    tpr, fpr = (torch.cat([torch.zeros(1), c.flip(0).cumsum(0)]).double() / c.sum() for c in (positive, negative))
    beaten = (negative.cumsum(0) - negative / 2) / negative.sum()  # by a positive of that level: share of the negatives
    unbeaten = 1 - (positive.cumsum(0) - positive / 2) / positive.sum()
    auc = float(positive @ beaten / positive.sum())
    spread = _error(beaten[level[has]]) + _error(unbeaten[level[~has]])
    return Roc(fpr, tpr, auc, math.sqrt(spread))


def _error(shares: Tensor) -> float:
    """Squared standard error of a mean."""
    return float(shares.var() / len(shares)) if len(shares) > 1 else 0.0


def best_threshold(scores: Tensor, has: Tensor) -> float:
    """The threshold above which rows are taken to have an attribute with the fewest errors: half-way between two scores, or beyond all.

    Of several that are as good, the lowest. Raises BadInput as `roc` does.

    >>> best_threshold(torch.tensor([0.0, 1.0, 2.0, 3.0]), torch.tensor([False, False, True, True]))
    1.5
    """
    _require_scores(scores, has)
    found, level = scores.double().unique(return_inverse=True)
    gain = torch.zeros(len(found), dtype=torch.float64).index_add_(0, level, torch.where(has, -1.0, 1.0).double())
    right = has.sum() + torch.cat([torch.zeros(1).double(), gain.cumsum(0)])  # where the lowest k levels are taken not to have it
    edges = torch.cat([found[:1] - 1, (found[1:] + found[:-1]) / 2, found[-1:] + 1])
    return float(edges[right.argmax()])


def _require_scores(scores: Tensor, has: Tensor) -> None:
    _require_flags(has, 1)
    if scores.shape != has.shape or not bool(scores.isfinite().all()):
        raise BadInput(f"scores of shape {tuple(scores.shape)} for {len(has)} rows; expected one finite number each")
    if bool(has.all()) or not bool(has.any()):
        raise BadInput(f"{int(has.sum())} of {len(has)} rows have the attribute: reading it needs some with it and some without")


def cells(flags: Tensor) -> dict[tuple[bool, ...], float]:
    """Share of the rows that have each combination of attributes, bool (n, k): the lecture's table, for two of them."""
    _require_flags(flags, 2)
    k = flags.shape[1]
    return {some: float((flags == torch.tensor(some)).all(1).double().mean()) for some in itertools.product((True, False), repeat=k)}
