"""What a code knows of the data's labels: the metrics `one_nn` and `linear_probe`.

    one_nn: share of test rows whose nearest training row, by Euclidean distance of the codes E(x), bears their label.
        Donahue et al. 2016, arXiv 1605.09782: MNIST, 60,000 references
    linear_probe: share of test rows that a logistic regression on the codes names rightly

Neither says much alone. On MNIST raw pixels reach 96.91 % by their nearest neighbour and 50 principal components 97.34 %, and an
*untrained* encoder stands near 92 %: all three are measured beside a model, the last as its control.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from condgen.conditions import Values
from condgen.data.store import Batch
from condgen.editing.space import Space
from condgen.errors import BadInput, require_whole
from condgen.evaluation.measuring import Family, Measured, Measuring, some_rows
from condgen.evaluation.recognition import features_of
from condgen.model import Model, capabilities

REFERENCES = 100_000
"""Training rows, at most, among which the nearest is looked for."""
WIDEST = 4096
FITTED = 20_000
"""Training rows, at most, that a linear probe is fitted to."""
COMPONENTS = 50
CANDIDATES = 64
"""Rows whose distances rounding cannot tell apart, up to which they are computed again exactly."""
Reading = Callable[[Batch], Tensor]
"""Rows of a data set to vectors, float32 (n, d) on the CPU."""


# --- readings -------------------------------------------------------------------------------------------------------------


def codes(model: Model) -> Reading:
    """E(x), under the row's own conditions where the encoder reads some."""
    return lambda batch: Space(model).encode(batch.x, batch.c).flatten(1)


def features(model: Model) -> Reading:
    return lambda batch: features_of(model, batch.x)


def pixels(batch: Batch) -> Tensor:
    """Pixels in [0, 1], or the coordinates of points."""
    return ((batch.x + 1) / 2 if batch.x.dim() == 4 else batch.x).flatten(1)


def read(data: Any, rows: Tensor, reading: Reading, chunk: int = 2000) -> Tensor:
    """The reading of these rows, float32 (n, d). Raises BadInput where it is not of finite numbers."""
    found = torch.cat([reading(data.batch(part)).float() for part in rows.split(chunk)])
    if not bool(torch.isfinite(found).all()):
        raise BadInput("the model's codes are not finite numbers; train it again, or choose an earlier checkpoint")
    return found


def readings(m: Measuring, name: str) -> dict[str, tuple[Reading, Reading]]:
    """Name in a result -> how the model reads, and how it does untrained: E(x), and features as a part, or alone where there is no E.

    Beside E(x), features of more than WIDEST numbers are left out: to search them would take many minutes.
    """
    has, both = capabilities(m.model), (m.model, m.untrained)
    found: dict[str, Any] = {}
    if "encode" in has:
        found[name] = tuple(codes(model) for model in both)
    if "features" in has and not (found and features(m.model)(m.test.batch(torch.arange(1))).shape[1] > WIDEST):
        found[f"{name}/features" if found else name] = tuple(features(model) for model in both)
    return found


def label_of(m: Measuring, what: str) -> str:
    """The first label of the data, whether or not the model reads it. Raises BadInput where there is none."""
    name = next(iter(m.labels_of(m.test.schema)), None)
    if name is None:
        raise BadInput(f"{what} needs a label among the data's conditions: {', '.join(m.test.schema) or 'there are none'}")
    return name


def given(model: Model) -> str:
    """The field of a provenance that says what the model is told of a row; "" for a model without conditions."""
    return f"|given {', '.join(model.schema)}" if model.schema else ""


def drawn_latents(m: Measuring, model: Any, another: bool = False) -> Tensor:
    """A draw of the prior for each test row, (n, ...) on the CPU, under its conditions; `another` is independent of the first."""
    c: Values = {k: v.to(model.device) for k, v in m.real_conditions.items()}
    model.noise.seed(m.seed + another)
    with torch.no_grad():
        return model.prior(len(m.real.x), c).detach().float().cpu()


# --- the nearest neighbour ------------------------------------------------------------------------------------------------


def one_nn(m: Measuring) -> Family:
    """Of E(x), with the untrained encoder as the control; parts: the model's features, raw pixels, and their principal components."""
    name, rows = label_of(m, "one_nn"), some_rows(len(m.train), REFERENCES)
    answers, y = m.train.values(rows)[name], m.real.c[name]
    about = f"one_nn|label={name}|Euclidean|n={len(y)} test|references={len(rows)}|v1{given(m.model)}"

    def share(reading: Reading) -> float:
        return agreement(answers[nearest_rows(reading(m.real), read(m.train, rows, reading))], y)

    return _family(m, "one_nn", about, share) | _plain(m, about, rows, share)


def _family(m: Measuring, name: str, about: str, share: Callable[[Reading], float]) -> Family:
    """Each of the model's readings beside the judge and the untrained model."""
    about += "|ceiling=the judge|control=untrained model"
    shares = {part: [share(reading) for reading in two] for part, two in readings(m, name).items()}
    return {part: _share(m, ours, control, about) for part, (ours, control) in shares.items()}


def _plain(m: Measuring, about: str, rows: Tensor, share: Callable[[Reading], float]) -> Family:
    """What takes no model: pixels, and their principal components where there are more pixels than those."""
    about = about.removesuffix(given(m.model)) + "|ceiling=the judge|control=none"
    found = {"one_nn/pixels": share(pixels)}
    if pixels(m.real).shape[1] > COMPONENTS:
        project = principal(read(m.train, rows, pixels), COMPONENTS)
        found[f"one_nn/pca{COMPONENTS}"] = share(lambda batch: project(pixels(batch)))
    return {part: _share(m, value, None, about) for part, value in found.items()}


def _share(m: Measuring, value: float, control: float | None, about: str) -> Measured:
    ceiling = m.judge.accuracy[label_of(m, "a probe")]
    n = len(m.real.x)
    return Measured(value, ceiling, control, n, about, (value * (1 - value) / n) ** 0.5)


def nearest_rows(x: Tensor, references: Tensor, chunk: int = 256) -> Tensor:
    """The row of the nearest reference (m, d) for each of (n, d), by Euclidean distance: int64 (n,). Of several as near, the first.

    The search is in float32. Rows that its rounding cannot tell from the nearest are compared again in float64, where they are at most
    CANDIDATES; more are as good as equal, and the search decides. Memory is 2 * chunk * m.

    Raises:
        BadInput: where there is nothing to compare, or widths differ.
    """
    if x.dim() != 2 or x.shape[1:] != references.shape[1:] or not len(x) or not len(references):
        raise BadInput(f"vectors of shape {tuple(x.shape)} and references of {tuple(references.shape)}: expected (n, d) and (m, d)")
    require_whole("chunk", chunk, 1)
    y = references.float() - references.float().mean(0)  # what all have in common would only cost digits
    squares = y.square().sum(1)
    parts = zip(x.split(chunk), (x.float() - references.float().mean(0)).split(chunk), strict=True)
    return torch.cat([_nearest(part, moved, references, y, squares) for part, moved in parts])


def _nearest(x: Tensor, moved: Tensor, references: Tensor, y: Tensor, squares: Tensor) -> Tensor:
    apart = torch.addmm(squares, moved, y.T, alpha=-2)  # |y|^2 - 2 xy: |x|^2 orders nothing
    least, row = apart.min(1)
    slack = 64 * torch.finfo(torch.float32).eps * (moved.square().sum(1) + squares.max())
    near = apart <= (least + slack)[:, None]
    several = near.sum(1)
    for i in ((several > 1) & (several <= CANDIDATES)).nonzero().flatten().tolist():
        at = near[i].nonzero().flatten()
        row[i] = at[(references[at].double() - x[i].double()).square().sum(1).argmin()]
    return row


def agreement(found: Tensor, answers: Tensor) -> float:
    """Share of (n,) that are equal."""
    return float((found == answers).double().mean())


def principal(x: Tensor, dimensions: int) -> Callable[[Tensor], Tensor]:
    """The projection of (n, d) on the first principal components of x (m, d), float32 (n, dimensions)."""
    mean = x.double().mean(0)
    # By parts: a whole set in float64 would be twice as large again.
    products = torch.stack([(part.double() - mean).T @ (part.double() - mean) for part in x.split(10_000)]).sum(0)
    vectors = torch.linalg.eigh(products)[1].flip(1)[:, :dimensions]  # eigh sorts upwards
    return lambda rows: ((rows.double() - mean) @ vectors).float()


# --- the linear probe -----------------------------------------------------------------------------------------------------


def linear_probe(m: Measuring) -> Family:
    """Of E(x), with the untrained encoder as the control; parts: the model's features, and raw pixels."""
    name, rows = label_of(m, "linear_probe"), some_rows(len(m.train), FITTED)
    answers, y = m.train.values(rows)[name], m.real.c[name]
    about = f"linear_probe|label={name}|logistic regression, standardised, C=1|n={len(y)} test|fitted={len(rows)}|v1"

    def share(reading: Reading) -> float:
        return agreement(logistic(read(m.train, rows, reading), answers, reading(m.real)), y)

    plain = _share(m, share(pixels), None, f"{about}|ceiling=the judge|control=none")
    return _family(m, "linear_probe", about + given(m.model), share) | {"linear_probe/pixels": plain}


def logistic(train: Tensor, labels: Tensor, test: Tensor, c: float = 1.0, steps: int = 300) -> Tensor:
    """What a logistic regression of labels (m,) on vectors (m, d) says of (n, d): int64 (n,).

    Each dimension is standardised by the training rows; the penalty is |w|^2 / (2 c) beside the sum of losses. Ends after
    `steps` of L-BFGS. Raises BadInput where all rows bear one label.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    if len(labels.unique()) < 2:
        raise BadInput("all training rows bear one label; a probe needs at least two")
    mean, sd = train.mean(0), train.std(0, correction=0)
    scale = torch.where(sd > 1e-6, sd, 1.0)
    fitted = LogisticRegression(C=c, max_iter=steps, tol=1e-3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last digits decide no test row
        fitted.fit(((train - mean) / scale).numpy(), labels.numpy())
    return torch.from_numpy(fitted.predict(((test - mean) / scale).numpy()))
