"""Which samples a step sees: a function of (seed, epoch) alone, so that a resumed run needs no saved position but its step."""

from functools import lru_cache

import numpy as np
import torch

from condgen.conditions import Label
from condgen.data.store import Dataset
from condgen.errors import BadInput
from condgen.model import Model


@lru_cache(maxsize=8)
def permutation(n: int, seed: int, epoch: int, stream: int = 0) -> np.ndarray:
    """The order of epoch `epoch`, int64 (n,); another one for each stream."""
    return np.random.default_rng([seed, epoch, stream] if stream else [seed, epoch]).permutation(n)


def rows(n: int, batch: int, seed: int, step: int, stream: int = 0) -> np.ndarray:
    """Rows of step `step`, int64 (batch,): the epochs' permutations laid end to end, cut in batches.

    >>> sorted(np.concatenate([rows(6, 4, 0, s) for s in range(3)]).tolist())
    [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    """
    place = np.arange(step * batch, (step + 1) * batch)
    epochs, within = np.divmod(place, n)
    return np.concatenate([permutation(n, seed, int(e), stream)[within[epochs == e]] for e in np.unique(epochs)])


def even_rows(values: np.ndarray, k: int, batch: int, seed: int, step: int) -> np.ndarray:
    """Rows of step `step`, int64 (batch,), in turn one of each of k values: each value has epochs of its own, in an order of its own.

    >>> values = np.array([0, 0, 0, 0, 0, 0, 1, 1, 1, 1])
    >>> values[even_rows(values, 2, 6, 0, 0)].tolist()
    [0, 1, 0, 1, 0, 1]
    """
    groups = [np.flatnonzero(values == v) for v in range(k)]
    return np.stack([g[rows(len(g), batch // k, seed, step, 1 + v)] for v, g in enumerate(groups)], 1).ravel()


def rows_for(model: Model, data: Dataset, batch: int, seed: int, step: int) -> np.ndarray:
    """The rows of a step, int64 (batch,), as the model wants them: as they come, or evenly of each name of a label."""
    if model.evenly is None:
        return rows(len(data), batch, seed, step)
    return even_rows(np.asarray(data.content.columns[model.evenly]), least(model), batch, seed, step)


def least(model: Model) -> int:
    """Samples that no part of a batch can do without: one of each name where the model asks for as many of each, else one."""
    return len(_label(model).names) if model.evenly else 1


def check_evenly(model: Model, data: Dataset, batch: int, processes: int) -> None:
    """Raises BadInput where a batch cannot hold, on each process, as many of every name as the model asks for."""
    if model.evenly is None:
        return
    names, k = _label(model).names, least(model)
    if batch % (k * processes):
        shares = f"batch {batch}, {processes} process(es)"
        raise BadInput(f"{shares}: the batch must hold as many of each {model.evenly} ({', '.join(names)}), a multiple of {k * processes}")
    counts = torch.bincount(torch.as_tensor(data.content.columns[model.evenly]), minlength=k).tolist()
    if 0 in counts:
        held = ", ".join(f"{n} of {name}" for name, n in zip(names, counts, strict=True))
        raise BadInput(f"{data.name!r} ({data.split}) holds {held}: each batch needs as many of every {model.evenly}")


def _label(model: Model) -> Label:
    label = model.schema[model.evenly or ""]
    if not isinstance(label, Label):
        raise BadInput(f"{model.evenly!r} is a {type(label).__name__}; batches can be even in a Label alone")
    return label
