"""What is measured of a model, on which samples, beside which ceiling and which control.

Every metric is measured three times in the same way: on the model's samples (`value`), on real data in their place
(`ceiling`: what is the best that can be had), and on something known to be bad (`control`). Real data stand in with as many of
each class as the samples have, or are averaged over classes as they are. The *provenance* says all that a
number depends on, as fields between bars: `frechet|judge-v2:3fa9c1|n=10000/10000|f64|v1|...`.

A metric with parts is a *family*: `ms_ssim` is its mean over classes, `ms_ssim/7` that of class 7. METRICS, presets and
commands name the whole; a result holds the parts as well.
"""

import logging
import math
import platform
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from condgen.conditions import Attributes, Vector
from condgen.errors import BadInput, unknown
from condgen.evaluation.correlation import condition_correlation
from condgen.evaluation.diversity import ratio, within
from condgen.evaluation.effect import attribute_effect
from condgen.evaluation.frechet import frechet_of_features, kernel
from condgen.evaluation.gcn import parzen_gcn
from condgen.evaluation.likelihood import binarised, elbo, nll_iwae, parzen
from condgen.evaluation.measuring import Family, K, Measured, Measuring
from condgen.evaluation.memorisation import memorisation_ratio
from condgen.evaluation.recognition import one_shot_metric, retrieval_map
from condgen.evaluation.reconstruction import latent_of, pca_error, reconstruction_errors
from condgen.evaluation.resolution import discriminability
from condgen.evaluation.ssim import likeness, likeness_of_real
from condgen.model import Model, Run, capabilities

log = logging.getLogger("condgen")

CLASSWISE = "classes evenly|ceiling=test rows|control=labels shuffled"
"""Ends the provenance of what the judge says class by class."""


@dataclass(frozen=True)
class Metric:
    """One row of the table of metrics.

    Args:
        measure: of the context of one evaluation; a family answers with name -> Measured, its own name first.
        needs: the capability that the model must have.
        about: one line, for people.
        higher: whether more is better.
        near: the best value, where neither more nor less is better.
        label: whether the model must read a Label.
        numbers: whether it must read Attributes or a Vector.
        attributes: whether it must read Attributes.
        pictures: whether the samples must be pictures.
        asked_only: whether it is measured only where a run or a person names it.
    """

    measure: Callable[[Measuring], Measured | Family]
    needs: str
    about: str
    higher: bool = True
    near: float | None = None
    label: bool = False
    numbers: bool = False
    attributes: bool = False
    pictures: bool = False
    asked_only: bool = False

    def refusal(self, model: Model) -> str | None:
        """Why this cannot be measured of a model, or None where it can."""
        if self.needs not in capabilities(model):
            return f"the model has no `{self.needs}`"
        if self.label and not Measuring.labels_of(model.schema):
            return "the model reads no label"
        if self.numbers and not any(isinstance(c, Attributes | Vector) for c in model.schema.values()):
            return "the model reads no attributes and no vector"
        if self.attributes and not any(isinstance(c, Attributes) for c in model.schema.values()):
            return "the model reads no attributes"
        return "the samples are no pictures" if self.pictures and len(model.shape) != 3 else None


def _class_consistency(m: Measuring) -> Measured:
    about = f"{m.on_judge('class_consistency')}|label={m.label}|judge accuracy={m.judge_accuracy:.4f}|{CLASSWISE}"
    return Measured.of((c.mean for c in m.three_consistencies), m.n, about)


def _class_consistency_worst(m: Measuring) -> Measured:
    value = m.three_consistencies[0]
    worst = min(value.by_class, key=lambda k: value.by_class[k])
    about = f"{m.on_judge('class_consistency_worst')}|label={m.label}|worst is {m.name_of(worst)!r}|{CLASSWISE}"
    return Measured.of((c.worst for c in m.three_consistencies), m.n, about)


def _diversity(m: Measuring) -> Measured:
    real, samples, groups = m.real.x, m.balanced, m.groups_asked
    of = f"within {m.label}" if m.label else "over all"
    about = f"diversity_ratio|pixels L2|{of}|n={m.n}/{len(real)}|f64|v1{_even(m)}|control=one real picture a class repeated"
    beside = within(real, m.groups(m.real.c, real))
    sets = ((samples, groups), (m.stand_in.x, m.groups(m.stand_in.c, m.stand_in.x)), (m.one_each(groups), groups))
    return Measured.of((ratio(within(x, g), beside) for x, g in sets), m.n, about)


def _whole(m: Measuring) -> str:
    """Ends the provenance of what compares whole distributions."""
    return ("|classes as in the test rows" if m.label else "") + "|ceiling=training rows|control=untrained model"


def _even(m: Measuring) -> str:
    """Where every class is asked as often."""
    return ("|classes evenly" if m.label else "") + "|ceiling=training rows"


def _frechet(m: Measuring) -> Measured:
    found = [frechet_of_features(m.real_features, f) for f in m.three_features]
    clamped = max(f.clamped for f in found)
    about = m.on_judge("frechet", m.real_features) + (f"|clamped={clamped:.1e}" if clamped > 1e-6 else "") + _whole(m)
    return Measured.of((f.value for f in found), m.n, about)


def _kernel(m: Measuring) -> Measured:
    found = [kernel(m.real_features, f) for f in m.three_features]
    return Measured.of(found, m.n, m.on_judge("kernel", m.real_features) + f"|cubic, unbiased, full set{_whole(m)}")


def _neighbour(name: str) -> Callable[[Measuring], Measured]:
    def measure(m: Measuring) -> Measured:
        about = m.on_judge(name, m.real_features) + f"|k={K}{_whole(m)}"
        return Measured.of((getattr(found, name) for found in m.three_neighbours), m.n, about)

    return measure


def _parzen(m: Measuring) -> Measured:
    """Breuleux's protocol as in Mirza 2014: pixels in [0, 1], the width by validation on the tail of the training data."""
    train, valid = m.parzen_parts()
    test = m.unit(m.real.x)
    value, ceiling, control = (parzen(m.unit(s), m.unit(valid), test) for s in (m.balanced, train, train.mean(0, keepdim=True)))
    about = f"parzen|pixels in [0,1]|n={m.n}/{len(test)}|sigma={value.sigma:.3f}, ceiling {ceiling.sigma:.3f}"
    about += f"|valid={len(valid)} of the train tail|f64|v1{_even(m)}|control=the mean picture alone"
    return Measured(value.mean, ceiling.mean, control.mean, m.n, about, value.standard_error)


def _bound(name: str, of: Callable[..., Tensor], draws: int, most: int) -> Callable[[Measuring], Measured]:
    def measure(m: Measuring) -> Measured:
        x, c = m.real.x[:most], {k: v[:most] for k, v in m.real_conditions.items()}
        x = binarised(x, m.seed) if is_binary(m.model) else x
        value = of(m.model, x, c, draws, m.seed)
        few = max(1, len(x) // 10)
        control = of(m.untrained, x[:few], {k: v[:few] for k, v in c.items()}, draws, m.seed)
        kind = "dynamically binarised" if is_binary(m.model) else "densities of x in [-1,1]"
        about = f"{name}|k={draws}|{kind}|n={len(x)} test|nats|v1|ceiling=none|control=untrained model, n={few}"
        return Measured(float(value.mean()), None, float(control.mean()), len(x), about, float(value.std() / len(x) ** 0.5))

    return measure


def _reconstruction(m: Measuring) -> Measured:
    """Mean squared error of decode(encode(x)) a pixel, in [0, 1], beside a projection on as many principal components."""
    z_dim = math.prod(latent_of(m.model, m.real.x[:1], m.real_conditions).shape[1:])
    error = reconstruction_errors(m.model, m.real.x, m.real_conditions)
    linear = pca_error(m.train, m.real.x, z_dim)
    about = f"reconstruction|mean squared error in [0,1]|n={len(error)} test|v1|ceiling=the picture itself|control=PCA, {z_dim} dimensions"
    return Measured(float(error.mean()), 0.0, linear, len(error), about)


def is_binary(model: Model) -> bool:
    """Whether the model's likelihood is of binary pictures, so that its bounds are measured on binarised ones."""
    kind = getattr(model, "likelihood", None)
    return getattr(kind, "kind", kind) == "bernoulli"


METRICS: dict[str, Metric] = {
    "class_consistency": Metric(_class_consistency, "sample", "share of samples in which the judge sees the class asked for", label=True),
    "class_consistency_worst": Metric(_class_consistency_worst, "sample", "the same of the worst class", label=True),
    "condition_correlation": Metric(
        condition_correlation, "sample", "correlation of the numbers asked for and those the judge reads off the samples", numbers=True
    ),
    "diversity_ratio": Metric(_diversity, "sample", "distance of two samples of one condition, over that of real ones", near=1.0),
    "ms_ssim": Metric(likeness, "sample", "likeness of two samples of one class, 1 where all are equal", higher=False, pictures=True),
    "memorisation_ratio": Metric(
        memorisation_ratio, "sample", "distance to the nearest training picture, over that of test pictures", near=1.0, pictures=True
    ),
    "frechet": Metric(_frechet, "sample", "Fréchet distance of the judge's features to real ones", higher=False),
    "kernel": Metric(_kernel, "sample", "kernel distance of the judge's features to real ones", higher=False),
    "precision": Metric(_neighbour("precision"), "sample", "share of samples near real ones"),
    "recall": Metric(_neighbour("recall"), "sample", "share of real ones near samples"),
    "density": Metric(_neighbour("density"), "sample", "how densely real ones surround a sample"),
    "coverage": Metric(_neighbour("coverage"), "sample", "share of real ones with a sample in their neighbourhood"),
    "parzen": Metric(_parzen, "sample", "test log-likelihood under a Parzen window of samples, nats", pictures=True),
    "elbo": Metric(_bound("elbo", elbo, 1, 10000), "log_weights", "lower bound of the test log-likelihood, nats"),
    "nll_iwae": Metric(
        _bound("nll_iwae", nll_iwae, 100, 2000), "log_weights", "upper bound of -log-likelihood by 100 draws, nats", higher=False
    ),
    "reconstruction": Metric(_reconstruction, "encode", "squared error of decode(encode(x)), pixels in [0, 1]", higher=False),
    "discriminability": Metric(
        discriminability,
        "sample",
        "consistency lost when the samples' detail is; only where asked",
        label=True,
        pictures=True,
        asked_only=True,
    ),
    "ms_ssim_real": Metric(
        likeness_of_real, "sample", "`ms_ssim` of real pictures; only where asked", higher=False, pictures=True, asked_only=True
    ),
    "parzen_gcn": Metric(
        parzen_gcn,
        "sample",
        "minus the Parzen log-likelihood of contrast-normalised pictures, nats; only where asked",
        higher=False,
        pictures=True,
        asked_only=True,
    ),
    "attribute_effect": Metric(
        attribute_effect,
        "sample",
        "change that the judge sees, of the change asked of one attribute alone; only where asked",
        near=1.0,
        attributes=True,
        asked_only=True,
    ),
    "retrieval_map": Metric(
        retrieval_map,
        "features",
        "how early test pictures of the query's label come, by the model's features; only where asked",
        pictures=True,
        asked_only=True,
    ),
    "one_shot_accuracy": Metric(
        one_shot_metric,
        "features",
        "right answers in Omniglot's 20-way one-shot runs, by the model's features; only where asked",
        pictures=True,
        asked_only=True,
    ),
}


def metric_of(name: str) -> Metric | None:
    """The row of METRICS that a name in a result belongs to: `ms_ssim/7` to `ms_ssim`; None for a name of another version."""
    return METRICS.get(name.split("/", 1)[0])


def chosen(model: Model, asked: Iterable[str] | None) -> list[str]:
    """The metrics that were asked for, each one possible; or all that the model allows and that need no asking. Raises BadInput."""
    names = list(asked or ())
    for name in names:
        if name not in METRICS:
            raise unknown("metric", name, METRICS)
        if why := METRICS[name].refusal(model):
            raise BadInput(f"{name} cannot be measured: {why}")
    return names or [name for name, metric in METRICS.items() if not (metric.asked_only or metric.refusal(model))]


def evaluate(
    model: Model,
    run: Run,
    *,
    metrics: Iterable[str] | None = None,
    n: int | None = None,
    seed: int = 0,
    train: Any = None,
    test: Any = None,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure a trained model; the answer is what `evaluation.json` holds.

    Args:
        model: trained; it is put in eval mode while it is measured.
        run: how it was trained: its data, metrics and reported values.
        metrics: names; by default the run's, else all that the model and its conditions allow.
        n: samples; by default as many as test rows, at least 1,000 and at most 10,000.
        seed: of the samples and of all other draws.
        train: the training split, by default loaded as `run` says.
        test: the test split, likewise.
        progress: called with the name of each metric before it is measured.

    Raises:
        BadInput: for a metric that does not exist or does not fit the model, and for data that do not fit. A metric that nobody
            asked for by name and that the data do not allow is left out, with a warning.
    """
    start = time.perf_counter()
    asked = list(metrics if metrics is not None else run.metrics)
    context = Measuring(model, run, n=n, seed=seed, train=train, test=test)
    found = {}
    for name in chosen(model, asked):
        if progress:
            progress(name)
        for part, measured in _measured(name, context, bool(asked)).items():
            found[part] = measured.to_json(run.reported.get(part))
    return {
        "preset": run.name,
        "metrics": found,
        "seconds": round(time.perf_counter() - start, 1),
        "machine": machine(),
        "versions": versions(),
        "seed": seed,
    }


def _measured(name: str, context: Measuring, asked: bool) -> Family:
    """A metric and its parts; nothing, with a warning, where the data do not allow it (too few rows, say) and nobody asked for it."""
    metric = METRICS[name]
    if metric.needs == "sample":
        context.samples  # noqa: B018  samples that are not finite are refused in any case
    try:
        measured = metric.measure(context)
    except BadInput as error:
        if asked:
            raise
        log.warning("%s is not measured: %s", name, error)
        return {}
    return {name: measured} if isinstance(measured, Measured) else measured


def machine() -> str:
    """The kind of machine in general words: processor, cores and GPU; nothing that names this one."""
    import os

    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{_processor()}, {cores} cores{gpu}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as lines:
            names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or platform.machine()


def versions() -> dict[str, str]:
    """Of condgen and of what computes."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"python": platform.python_version()}
    for name in ("condgen", "torch", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found
