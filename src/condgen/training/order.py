"""Which samples a step sees: a function of (seed, epoch) alone, so that a resumed run needs no saved position but its step."""

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=2)
def permutation(n: int, seed: int, epoch: int) -> np.ndarray:
    """The order of epoch `epoch`, int64 (n,)."""
    return np.random.default_rng([seed, epoch]).permutation(n)


def rows(n: int, batch: int, seed: int, step: int) -> np.ndarray:
    """Rows of step `step`, int64 (batch,): the epochs' permutations laid end to end, cut in batches.

    >>> sorted(np.concatenate([rows(6, 4, 0, s) for s in range(3)]).tolist())
    [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    """
    place = np.arange(step * batch, (step + 1) * batch)
    epochs, within = np.divmod(place, n)
    return np.concatenate([permutation(n, seed, int(e))[within[epochs == e]] for e in np.unique(epochs)])
