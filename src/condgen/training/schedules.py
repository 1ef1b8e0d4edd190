"""How learning rate and momentum move over a run: (step, steps, optimizer) -> (lr, momentum)."""

import math
from collections.abc import Callable

from condgen.errors import unknown
from condgen.model import Optimizer


def constant(step: int, steps: int, o: Optimizer) -> tuple[float, float]:
    return o.lr, o.momentum


def late(step: int, steps: int, o: Optimizer) -> tuple[float, float]:
    """Constant for the first half, then linearly down to 1 % of it."""
    return o.lr * min(1.0, max(0.01, 2 * (1 - step / steps))), o.momentum


def half(step: int, steps: int, o: Optimizer) -> tuple[float, float]:
    """Constant for the first half, then linearly to 0. Zhu et al. 2017, arXiv 1703.10593, section 4: 100 epochs of each."""
    return o.lr * min(1.0, 2 * max(0.0, 1 - step / steps)), o.momentum


def cosine(step: int, steps: int, o: Optimizer) -> tuple[float, float]:
    """Half a cosine from lr to 0. Loshchilov & Hutter 2016, arXiv 1608.03983, without restarts."""
    return o.lr * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))), o.momentum


def pylearn2(step: int, steps: int, o: Optimizer) -> tuple[float, float]:
    """lr / 1.00004^step, never below 1e-6; momentum rises to 0.7 over 250 epochs of 500 steps. Mirza & Osindero 2014, section 4.1."""
    return max(o.lr * 1.00004**-step, 1e-6), o.momentum + (0.7 - o.momentum) * min(1.0, step / 125_000)


def gauthier(step: int, steps: int, o: Optimizer) -> tuple[float, float]:
    """lr / 1.000004^step, never below 1e-6; momentum rises to 0.7 over 250 epochs of the paper's 12,000 pictures in
    batches of 128. Gauthier 2014, the released YAML."""
    return max(o.lr * 1.000004**-step, 1e-6), o.momentum + (0.7 - o.momentum) * min(1.0, step / 23_500)


SCHEDULES: dict[str, Callable[[int, int, Optimizer], tuple[float, float]]] = {
    "constant": constant,
    "late": late,
    "half": half,
    "cosine": cosine,
    "pylearn2": pylearn2,
    "gauthier": gauthier,
}

STRETCHED = ("late", "half", "cosine")
"""Those that move with the length of the run, so that a run made longer or shorter on its way is not one of that length."""


def at(step: int, steps: int, o: Optimizer) -> tuple[float, float]:
    """lr and momentum of this step. Raises BadInput for a schedule that does not exist."""
    if o.schedule not in SCHEDULES:
        raise unknown("schedule", o.schedule, SCHEDULES)
    return SCHEDULES[o.schedule](step, steps, o)
