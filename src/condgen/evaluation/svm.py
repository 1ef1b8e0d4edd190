"""What a hundred labels a class make of a model's features: the metric `svm_error`, ALI's protocol on SVHN.

Dumoulin et al. 2016, arXiv 1606.00704. The model is frozen; a linear SVM with squared hinge ("L2-SVM") is trained on 100
labelled rows of each class. Rows come from the first five sixths of the training split; the last sixth (10,000 of MNIST's 60,000) chooses
C among exp(-20) ... exp(20), once, on the first draw. Then 100 SVMs on fresh draws are tested on the test split.

The features are `Model.features`, which for ALI are its last three hidden layers and the code; E(x) for a model that has none. They are
not standardised, as in the paper.
"""

import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor

from condgen.errors import BadInput, require_whole
from condgen.evaluation.measuring import Family, Measured, Measuring
from condgen.evaluation.probes import codes, features, given, label_of, pixels, read
from condgen.model import Model, capabilities

GRID = tuple(float(c) for c in np.exp(np.linspace(-20, 20, 50)))
PER_CLASS = 100
DRAWS = 100
CONTROL_DRAWS = 10
"""Of raw pixels and of the untrained model."""


class Svm(NamedTuple):
    """Mean and standard deviation of the test error over the draws, shares in [0, 1], and the C that was chosen."""

    error: float
    sd: float
    c: float


def svm_error(m: Measuring) -> Family:
    """Of the model's features, with raw pixels as the control; its part is the untrained model, measured alike with fewer draws."""
    name = label_of(m, "svm_error")
    sets = (_reading(m.model), DRAWS), (_reading(m.untrained), CONTROL_DRAWS), (pixels, CONTROL_DRAWS)
    ours, untrained, plain = (_measured(m, name, reading, draws) for reading, draws in sets)
    of = "features" if "features" in capabilities(m.model) else "E(x)"
    about = f"svm_error|label={name}|{of}|{PER_CLASS} a class|C of {len(GRID)} on the last sixth of train|n={len(m.real.x)} test|v1"
    ceiling = 1 - m.judge.accuracy[name]
    ends = f"ceiling=the judge, trained on all labels|control=raw pixels, {CONTROL_DRAWS} draws, sd {plain.sd:.4f}, C {plain.c:.4g}"
    return {
        part: Measured(svm.error, ceiling, plain.error, len(m.real.x), f"{about}{given(m.model)}|draws={draws}|{_outcome(svm)}|{ends}")
        for part, svm, draws in (("svm_error", ours, DRAWS), ("svm_error/untrained", untrained, CONTROL_DRAWS))
    }


def _outcome(svm: Svm) -> str:
    return f"sigma={svm.sd:.4f} over draws, C {svm.c:.4g}"


def _reading(model: Model) -> Any:
    return features(model) if "features" in capabilities(model) else codes(model)


def _measured(m: Measuring, name: str, reading: Any, draws: int) -> Svm:
    every = torch.arange(len(m.train))
    return l2_svm(read(m.train, every, reading), m.train.values()[name], reading(m.real), m.real.c[name], draws, seed=m.seed)


def l2_svm(
    train: Tensor, labels: Tensor, test: Tensor, answers: Tensor, draws: int = DRAWS, per_class: int = PER_CLASS, seed: int = 0
) -> Svm:
    """The protocol of the module's head.

    Args:
        train, labels: (m, d) and (m,), in the order of the training split.
        test, answers: (n, d) and (n,).
        draws: SVMs that are tested.
        per_class: labelled rows of each class in a draw.
        seed: of the draws.

    Raises:
        BadInput: where a class has too few rows, or there is one class alone.
    """
    require_whole("draws", draws, 1)
    require_whole("per_class", per_class, 1)
    cut = len(train) * 5 // 6
    chosen = balanced_draws(labels[:cut], per_class, seed)
    first = next(chosen)
    errors = [_error(train[first], labels[first], train[cut:], labels[cut:], c) for c in GRID]
    best = GRID[int(np.argmin(errors))]  # of several as good, the smallest
    found = [_error(train[rows], labels[rows], test, answers, best) for rows, _ in zip(chosen, range(draws), strict=False)]
    return Svm(float(np.mean(found)), float(np.std(found)), best)


def balanced_draws(labels: Tensor, per_class: int, seed: int) -> Iterator[Tensor]:
    """Rows of `per_class` of each class, drawn anew each time. Raises BadInput where a class has fewer, or there is one alone."""
    generator = Generator().manual_seed(seed)
    classes = [(labels == k).nonzero().flatten() for k in labels.unique()]
    fewest = min(len(rows) for rows in classes)
    if len(classes) < 2 or fewest < per_class:
        raise BadInput(f"{len(classes)} classes with at least {fewest} rows each; a draw needs two classes, and {per_class} rows of each")
    while True:
        yield torch.cat([rows[torch.randperm(len(rows), generator=generator)[:per_class]] for rows in classes])


def _error(train: Tensor, labels: Tensor, test: Tensor, answers: Tensor, c: float) -> float:
    """Share of test rows that one SVM names wrongly."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    rows, basis = spanned(train.double())
    svm = LinearSVC(C=c, loss="squared_hinge", dual="auto", random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # at the largest C of the grid, which is never the best
        svm.fit(rows.numpy(), labels.numpy())
    scores = (test @ (basis @ torch.from_numpy(svm.coef_.T)).to(test)).double().numpy() + svm.intercept_
    best = scores.argmax(1) if scores.shape[1] > 1 else (scores[:, 0] > 0).astype(int)
    return float(np.mean(svm.classes_[best] != answers.numpy()))


def spanned(train: Tensor) -> tuple[Tensor, Tensor]:
    """Rows (n, d) in an orthonormal basis of what they span, and that basis (d, k), k = min(n, d).

    The weights of an SVM are a sum of its rows, so those of the turned rows, turned back, are the same: of 1,000 rows of 9,536 numbers
    the fit takes a tenth of the time.
    """
    if train.shape[0] >= train.shape[1]:
        return train, torch.eye(train.shape[1], dtype=train.dtype)
    basis, _ = torch.linalg.qr(train.T)
    return train @ basis, basis
