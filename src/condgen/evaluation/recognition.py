"""What a model's features know of classes that it never saw: the metrics `retrieval_map` and `one_shot_accuracy`.

Both look at pictures whose ink is centred, through `Model.features`, brought to at most 256 whitened principal components of the
training split's features, by cosine. Beside the value stand the same model untrained (the control) and, in the provenance, what
pixels alone reach: a model that cannot beat them has learnt nothing about strokes.

The protocol is ours, after the uses that Creswell & Bharath 2016 make of such features; their numbers were not at hand.
"""

from functools import cache

import torch
from torch import Generator, Tensor

from condgen.data.ink import blurred, centred
from condgen.data.omniglot import one_shot_runs
from condgen.errors import BadInput
from condgen.evaluation.measuring import Family, Measured, Measuring
from condgen.evaluation.retrieval import Accuracy, Features, Retrieval, one_shot, one_shot_accuracy, retrieval, whitening
from condgen.evaluation.strokes import hausdorff_distances
from condgen.model import Model

DIMENSIONS = 256
FITTED = 3000
"""Training rows, at most, that the whitening is fitted to."""
BLUR = 1 / 32
"""Sigma of the pixel control's blur, as a share of a picture's side: 1 px at 32."""
ENDS = "cosine|v1|ceiling=by definition, all of the label first|control=untrained model"

ALL_RIGHT = "cosine|v1|ceiling=1 by definition|control=untrained model"


def retrieval_map(m: Measuring) -> Family:
    """Mean average precision over the test rows, by the first label of the data, whether or not the model reads it.

    Its parts are the precisions at 1 and at 19, or at all other rows where these are fewer.
    """
    name = next(iter(m.labels_of(m.test.schema)), None)
    if name is None:
        raise BadInput(f"retrieval_map needs a label among the data's conditions: {', '.join(m.test.schema) or 'there are none'}")
    x, labels = _prepared(m.real.x), m.real.c[name]
    k = min(19, len(x) - 1)
    sets = (whitened(m, m.model)(x), whitened(m, m.untrained)(x), pixels_of(x))
    found = [retrieval(features, labels, k) for features in sets]
    about = f"retrieval_map|label={name}|{_recipe(m, x)}|n={len(x)} test|{ENDS}"
    names = {"retrieval_map": 2, "retrieval_map/P@1": 0, f"retrieval_map/P@{k}": 1}
    best = (1.0, best_precision(labels, k), 1.0)
    return {part: _one_of(found, i, best[i], len(x), about) for part, i in names.items()}


def best_precision(labels: Tensor, k: int) -> float:
    """The precision at k where all rows of the query's label come first: below 1 where a label has fewer than k others.

    >>> best_precision(torch.tensor([0, 0, 0, 1, 1, 2]), 2)
    0.8
    """
    others = labels.unique(return_counts=True)[1] - 1
    shares = (others.double() / k).clamp(max=1)
    return float((shares * (others + 1))[others > 0].sum() / (others + 1)[others > 0].sum())


def _one_of(found: list[Retrieval], i: int, ceiling: float, n: int, about: str) -> Measured:
    """The i-th number of the model, of the untrained one, and of pixels."""
    ours, control, pixels = ((of.p_at_1, of.p_at_k, of.map)[i] for of in found)
    return Measured(ours, ceiling, control, n, f"{about}|pixel control={pixels:.4f}", found[0].standard_errors[i])


def one_shot_metric(m: Measuring) -> Measured:
    """Share of right answers in Lake's 20 runs, 20 ways, each character shown once."""
    if len(m.model.shape) != 3 or m.model.shape[0] != 1 or m.model.shape[1] != m.model.shape[2]:
        raise BadInput(f"one_shot_accuracy is of square pictures with one channel; the model's samples have shape {tuple(m.model.shape)}")
    runs = one_shot_runs(m.model.shape[-1], centred=True)
    ours, control = (one_shot_accuracy(whitened(m, model), runs) for model in (m.model, m.untrained))
    n = sum(len(run.answers) for run in runs)
    about = f"one_shot_accuracy|Omniglot's {len(runs)} runs of {len(runs[0].shown)}|{_recipe(m, runs[0].shown)}|n={n}|{ALL_RIGHT}"
    about += f"|pixel control={one_shot_pixels().mean:.4f}|modified Hausdorff={one_shot_hausdorff().mean:.4f}"
    return Measured(ours.mean, 1.0, control.mean, n, about, ours.standard_error)


def _recipe(m: Measuring, x: Tensor) -> str:
    """What is done to pictures before they are compared, in the words of a provenance."""
    side = "x".join(str(s) for s in x.shape[2:])
    centre = f"{side} px, ink centred" if x.shape[1] == 1 else f"{side} px"
    return f"{centre}|features whitened to {DIMENSIONS} components of {min(FITTED, len(m.train))} training rows at most"


# --- features -------------------------------------------------------------------------------------------------------------


def whitened(m: Measuring, model: Model) -> Features:
    """A model's features, whitened by those of the training split."""
    rows = torch.randperm(len(m.train), generator=Generator().manual_seed(0))[:FITTED].sort().values
    white = whitening(features_of(model, _prepared(m.train.batch(rows).x)), DIMENSIONS)
    return lambda x: white(features_of(model, x))


def _prepared(x: Tensor) -> Tensor:
    """Pictures (n, c, h, w) as they are compared: in one channel the ink is centred; where there is colour, all as it is."""
    if x.dim() != 4:
        raise BadInput(f"features are compared of pictures; the data are of shape {tuple(x.shape[1:])}")
    return centred(x) if x.shape[1] == 1 else x


@torch.no_grad()
def features_of(model: Model, x: Tensor, chunk: int = 250) -> Tensor:
    """`model.features` of x, float32 (n, d) on the CPU, in eval mode. Raises BadInput for what is not (n, d) of finite numbers."""
    was = model.training
    model.eval()
    features: Features = model.features  # type: ignore[assignment]  # a capability: not every model has it
    try:
        found = torch.cat([features(part.to(model.device)).float().cpu() for part in x.split(chunk)])
    finally:
        model.train(was)
    if found.dim() != 2 or len(found) != len(x) or not bool(torch.isfinite(found).all()):
        raise BadInput(f"the model's features of {len(x)} pictures are {tuple(found.shape)}; expected (n, d) of finite numbers")
    return found


# --- what pixels reach ----------------------------------------------------------------------------------------------------


def pixels_of(x: Tensor) -> Tensor:
    """Pixels in [0, 1] as features, blurred a little so that strokes need not meet exactly: (n, d)."""
    soft = blurred(x, BLUR * x.shape[-1]) if x.shape[1] == 1 else x
    return ((soft + 1) / 2).flatten(1)


def one_shot_pixels() -> Accuracy:
    """Of pixels, 32 px, centred, blurred by 1 px, by Euclidean distance."""
    return one_shot_accuracy(pixels_of, one_shot_runs(32, centred=True), "l2")


@cache
def one_shot_hausdorff() -> Accuracy:
    """Of the modified Hausdorff distance, 105 px; it depends on no model, so it is measured once."""
    return one_shot(hausdorff_distances, one_shot_runs())
