"""Whether a plane parts the latents of what has an attribute from those of what has not: `separability_z` and `separability_w`.

    exp( sum over attributes of H(Y | X) ),    Y: what the judge sees in a sample,  X: the side of a linear SVM that its latent lies on

Karras, Laine & Aila 2019, arXiv 1812.04948, section 4.2. 1 where every attribute is told by a plane, and twice as much for each that no
plane tells at all and that half of the samples have. Entropies are in nats; the paper's are in bits, its base 2: the score is the same.

Samples are labelled by the judge: every class of a label against the rest, and attributes above a cut, which is the half of the range for
those that are 0 or 1, else the median of what the judge reads off real rows: a judge that is not sure answers towards the mean, and few
samples of LFW's faces pass the half of most probabilities. For each attribute the half of the samples of which the judge is surer is kept.

Ours: numbers of a latent are standardised, so that the SVM's penalty favours no space by its scale, and an SVM speaks of rows that it was
not fitted to. The paper's 100,000 rows need no such care, a few thousand do. Attributes that nearly all or nearly none of the kept samples
have are left out and named. The sum grows with the number of attributes: `/mean` is exp of their mean, from 1 to 2.
"""

import math
import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from condgen.conditions import Attributes, Label
from condgen.errors import BadInput
from condgen.evaluation.judge import Judge
from condgen.evaluation.measuring import Family, Measured, Measuring
from condgen.evaluation.probes import given
from condgen.evaluation.synthesis import AtRest, conditions_of

DRAWN = 8000
"""Samples, of which half are kept."""
RARE = 0.02
"""Share of the kept samples that must have an attribute, and that must lack it."""


class Seen(NamedTuple):
    """What the judge says of one attribute: bool (n,), and how sure it is, (n,), the larger the surer."""

    has: Tensor
    sure: Tensor


def separability_z(m: Measuring) -> Family:
    """Of z; part `/mean`."""
    return _family(m, "z")


def separability_w(m: Measuring) -> Family:
    """Of w; part `/mean`."""
    return _family(m, "w")


def _family(m: Measuring, space: str) -> Family:
    """Beside the best that can be, 1, and beside latents that say nothing: exp of the sum of H(Y)."""
    at, name, c = AtRest(m.model), f"separability_{space}", conditions_of(m, DRAWN)
    z = at.latents(DRAWN, m.seed)[0]
    w = at.mapping(z, c)
    seen = seen_in(m.judge, at.samples(w), m.real.x)
    kept, rare = _kept(seen)
    latents = z if space == "z" else w
    pairs = [(entropy_given(sides(latents[rows], seen[k].has[rows]), seen[k].has[rows]), _entropy(seen[k].has[rows])) for k, rows in kept]
    ours, blind = (sum(column) for column in zip(*pairs, strict=True))
    about = f"{name}|{m.judge.id}|cut at the median of {len(m.real.x)} test rows|LinearSVC, C=1, standardised, two halves crossed"
    about += f"|n={DRAWN // 2} surer of {DRAWN}|attributes={len(kept)}"
    about += (f"|left out for rarity: {', '.join(rare)}" if rare else "") + f"|no truncation|v1{given(m.model)}"
    ends = "|ceiling=1 by definition|control=latents that say nothing, H(Y)"
    return {
        part: Measured(math.exp(ours / by), 1.0, math.exp(blind / by), DRAWN // 2, about + ends)
        for part, by in ((name, 1), (f"{name}/mean", len(kept)))
    }


def _kept(seen: dict[str, Seen]) -> tuple[list[tuple[str, Tensor]], list[str]]:
    """Attributes and the rows that are kept of each; and the names of those too rare."""
    rows = {name: surer_half(each.sure) for name, each in seen.items()}
    shares = {name: float(each.has[rows[name]].double().mean()) for name, each in seen.items()}
    enough = [(name, rows[name]) for name, share in shares.items() if RARE <= share <= 1 - RARE]
    if not enough:
        raise BadInput(f"nearly all samples or nearly none have each of {', '.join(list(seen)[:12])}: there is nothing to part")
    return enough, [name for name in seen if name not in dict(enough)]


def surer_half(sure: Tensor) -> Tensor:
    """Rows of the larger half of (n,), in their order; of ties the first."""
    return sure.argsort(descending=True, stable=True)[: len(sure) // 2].sort().values


def seen_in(judge: Judge, x: Tensor, real: Tensor) -> dict[str, Seen]:
    """Every attribute, and every class against the rest, in samples; a name that occurs twice, behind its condition's.

    Of an attribute the judge is the surer the farther it reads from the cut, of a class the likelier it finds what it takes the
    sample for: so the same samples are kept for all classes.

    Args:
        judge: of the data.
        x: samples (n, *shape).
        real: (m, *shape), whose median cuts numbers.

    Raises:
        BadInput: where the judge reads neither attributes nor a label.
    """
    found: dict[str, Seen] = {}
    for condition, kind in judge.schema.items():
        if isinstance(kind, Attributes | Label):
            read = _read(judge, x, condition)
            if isinstance(kind, Attributes):
                read = read - _read(judge, real, condition).median(0).values.where(~torch.tensor(kind.binary), 0.0)
            for k, name in enumerate(kind.names):
                has, sure = (read.argmax(1) == k, read.amax(1)) if isinstance(kind, Label) else (read[:, k] > 0, read[:, k].abs())
                found[f"{condition}.{name}" if name in found else name] = Seen(has, sure)
    if not found:
        raise BadInput(f"separability needs attributes or a label in the data; they have {', '.join(judge.schema) or 'none'}")
    return found


@torch.no_grad()
def _read(judge: Judge, x: Tensor, condition: str, chunk: int = 1000) -> Tensor:
    """float64 (n, k): attributes on a scale from -1 to 1, or the logarithm of each class's probability."""
    device = next(judge.net.parameters()).device
    out = torch.cat([judge.net(part.float().to(device))[condition].cpu() for part in x.split(chunk)]).double()
    return out.log_softmax(1) if isinstance(judge.schema[condition], Label) else out


# --- sides and entropies --------------------------------------------------------------------------------------------------


def sides(x: Tensor, has: Tensor) -> Tensor:
    """On which side of a plane each of (n, d) lies, bool (n,), where the plane was fitted to the other half of the rows.

    Args:
        x: latents, in any unit: each number is standardised.
        has: bool (n,), at least 4 rows of each kind. Every second row of a kind is of the first half.

    Raises:
        BadInput: for fewer rows of a kind.
    """
    fewest = int(min(has.sum(), (~has).sum()))
    if fewest < 4:
        raise BadInput(f"{fewest} rows on one side; two halves need at least 4")
    x = (x.double() - x.double().mean(0)) / x.double().std(0, correction=0).clamp(min=1e-12)
    found, order = torch.zeros_like(has), has.int().argsort(stable=True)
    for half, other in ((order[::2], order[1::2]), (order[1::2], order[::2])):
        found[other] = _fitted(x[half], has[half], x[other])
    return found


def _fitted(x: Tensor, has: Tensor, other: Tensor) -> Tensor:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    svm = LinearSVC(C=1.0, dual=len(x) <= x.shape[1], random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last digits decide no side
        svm.fit(x.numpy(), has.numpy())
    return torch.from_numpy(svm.predict(other.numpy()))


def entropy_given(x: Tensor, y: Tensor) -> float:
    """H(Y | X) in nats of pairs of bool (n,): 0 where x tells y, H(Y) where it says nothing.

    >>> round(entropy_given(torch.tensor([True, False] * 2), torch.tensor([True, True, False, False])), 4)
    0.6931
    """
    joint = torch.stack([torch.stack([(a & b).double().mean() for b in (y, ~y)]) for a in (x, ~x)])
    return float(-torch.special.xlogy(joint, joint / joint.sum(1, keepdim=True).clamp(min=1e-300)).sum())


def _entropy(y: Tensor) -> float:
    return entropy_given(torch.zeros_like(y), y)
