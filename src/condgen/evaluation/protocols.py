"""What is measured of a model, on which samples, beside which ceiling and which control.

Every metric is measured three times in the same way: on the model's samples (`value`), on real data in their place
(`ceiling`: what is the best that can be had), and on something known to be bad (`control`). Real data stand in with as many of
each class as the samples have, or are averaged over classes as they are. The *provenance* says all that a
number depends on, as fields between bars: `frechet|judge-v2:3fa9c1|n=10000/10000|f64|v1|...`.

The metrics themselves, and which of them a model allows, are in the table of `metrics`.
"""

import logging
import platform
import time
from collections.abc import Callable, Iterable
from typing import Any

from condgen.errors import BadInput
from condgen.evaluation.measuring import Family, Measured, Measuring
from condgen.evaluation.metrics import METRICS, Metric, chosen, metric_of
from condgen.model import Model, Run

__all__ = ["METRICS", "Metric", "chosen", "evaluate", "machine", "metric_of", "versions"]

log = logging.getLogger("condgen")


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
