"""Is there variety among samples of one condition, or one prototype each?

The mean distance |x - x'| of two samples of one condition, averaged over conditions, beside the same for real samples:
1 is as varied as the data, 0 a single picture for each condition. Consistency alone cannot tell: one real picture a class
is perfectly consistent.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from condgen.errors import BadInput
from condgen.evaluation.frechet import as_features
from condgen.evaluation.neighbours import squared_distances


def mean_distance(samples: Any, chunk: int = 1024) -> float:
    """Mean L2 distance of all pairs of different rows of (n, ...), in float64."""
    x = as_features(samples)
    x = x - x.mean(0)
    total = sum(float(squared_distances(part, x).sqrt().sum()) for part in x.split(chunk))
    return total / (len(x) * (len(x) - 1))


def within(samples: Any, groups: Any) -> dict[int, float]:
    """group -> mean distance within it, for samples (n, ...) and groups int (n,); groups of one sample are left out."""
    x, g = torch.as_tensor(samples), torch.as_tensor(groups)
    if len(x) != len(g):
        raise BadInput(f"{len(x)} samples and {len(g)} groups")
    found, counts = g.unique(return_counts=True)
    return {int(k): mean_distance(x[g == k]) for k in found[counts > 1]}


def diversity_ratio(fake: Any, fake_groups: Any, real: Any, real_groups: Any) -> float:
    """Diversity within a condition over that of real data, over the conditions that both have. Raises BadInput if there are none."""
    return ratio(within(fake, fake_groups), within(real, real_groups))


def ratio(ours: Mapping[int, float], theirs: Mapping[int, float]) -> float:
    """`diversity_ratio` from what `within` found of both."""
    both = sorted(ours.keys() & theirs.keys())
    if not both:
        raise BadInput("no condition has two samples and two real ones: the diversity within it cannot be compared")
    real_mean = sum(theirs[k] for k in both)
    if real_mean == 0:
        raise BadInput("the real samples of each condition are all equal: they have no diversity to compare with")
    return sum(ours[k] for k in both) / real_mean


def one_group(samples: Tensor) -> Tensor:
    """All samples as one group, where nothing is asked of them: int64 (n,)."""
    return torch.zeros(len(samples), dtype=torch.int64)
