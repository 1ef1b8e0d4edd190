"""Does a sample show what was asked? The share of samples whose class, in the eyes of an independent judge, is the one asked for."""

from typing import Any, NamedTuple

import torch

from condgen.errors import BadInput


class Consistency(NamedTuple):
    """Shares in [0, 1]: over all samples, of the worst class, and of each class that was asked for."""

    overall: float
    worst: float
    by_class: dict[int, float]

    @property
    def mean(self) -> float:
        """Over classes, each counting the same however many samples it has."""
        return sum(self.by_class.values()) / len(self.by_class)


def consistency(predicted: Any, asked: Any) -> Consistency:
    """Of class indices (n,) that the judge sees and that were asked for."""
    seen, wanted = torch.as_tensor(predicted), torch.as_tensor(asked)
    if seen.shape != wanted.shape or seen.dim() != 1 or not len(seen):
        raise BadInput(f"predictions of shape {tuple(seen.shape)} for {tuple(wanted.shape)} asked: expected one each")
    right = (seen == wanted).double()
    by_class = {int(k): float(right[wanted == k].mean()) for k in wanted.unique()}
    return Consistency(float(right.mean()), min(by_class.values()), by_class)
