"""Bars of a likelihood for several runs, each beside what the paper reports, real data and the control.

Only what was measured alike stands in one figure: bars of another protocol or another n are refused with the reason.
"""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from condgen import api
from condgen.errors import BadInput, unknown
from condgen.evaluation.compare import compare, read_result
from condgen.evaluation.curves import COLOURS
from condgen.evaluation.protocols import METRICS
from condgen.evaluation.report import show
from condgen.figures.canvas import plain, write

LIKELIHOODS = ("parzen", "parzen_gcn", "elbo", "nll_iwae")
"""In the order of preference."""
BARS = {"value": "measured", "reported": "paper", "ceiling": "real data", "control": "control"}
WIDTH = 0.2
NARROWEST = 6.4
"""Inches that the title takes."""
LEGEND: dict[str, Any] = {"frameon": False, "fontsize": 9, "ncols": 4, "loc": "upper center", "bbox_to_anchor": (0.5, -0.1)}


def draw(out: Path, *runs: str, metric: str = "") -> Path:
    """A group of bars a run, with standard errors where they are known.

    Args:
        out: a PNG.
        runs: evaluated runs, or result files (.json).
        metric: one of `LIKELIHOODS`; by default the first that all have.

    Raises:
        BadInput: where a run was not evaluated, lacks the metric, or was measured otherwise than the first.
    """
    results = {name: read_result(api.home(name)) for name in runs}
    if len(results) < len(runs):
        raise BadInput(f"a run is given twice: {', '.join(runs)}")
    metric = metric_of(results, metric)
    entries = {name: result["metrics"][metric] for name, result in results.items()}
    first, *others = runs
    for other in others:
        if refused := compare(results[first], results[other], [metric]).refused:
            raise BadInput(f"{metric} of {first} and of {other} cannot stand in one figure: {refused[metric]}")
    titles = _titles(runs)
    with plain(max(NARROWEST, 1.6 + 2.0 * len(runs)), 4.6, layout="constrained") as figure:
        _bars(figure.subplots(), {titles[name]: entry for name, entry in entries.items()}, metric)
        return write(figure, out)


def metric_of(results: Mapping[str, Mapping[str, Any]], asked: str) -> str:
    """The metric that is asked for, or the first likelihood that all results have. Raises BadInput where one lacks it."""
    if asked and asked not in LIKELIHOODS:
        raise unknown("likelihood", asked, LIKELIHOODS)
    for name in [asked] if asked else LIKELIHOODS:
        if all(name in result["metrics"] for result in results.values()):
            return name
    have = "; ".join(f"{name} has {', '.join(m for m in LIKELIHOODS if m in r['metrics']) or 'none'}" for name, r in results.items())
    raise BadInput(f"{'not all have ' + asked if asked else 'no likelihood is common to all'}: {have}")


def standard_error(entry: Mapping[str, Any]) -> float:
    """The field "s.e.=" of an entry's provenance, 0 where there is none."""
    found = re.search(r"s\.e\.=([\d.eE+-]+)", entry.get("provenance", ""))
    return float(found.group(1)) if found else 0.0


def _titles(runs: Sequence[str]) -> dict[str, str]:
    """Short names of the runs where they differ, else the whole."""
    short = {run: Path(run).stem if run.endswith(".json") else Path(run).name for run in runs}
    return short if len(set(short.values())) == len(runs) else {run: run for run in runs}


def _bars(axis: Any, entries: Mapping[str, Mapping[str, Any]], metric: str) -> None:
    for i, entry in enumerate(entries.values()):
        present = [key for key in BARS if entry.get(key) is not None]
        for j, key in enumerate(present):
            place = i + (j - (len(present) - 1) / 2) * WIDTH
            _bar(axis, place, *with_error(key, entry), COLOURS[list(BARS).index(key)], BARS[key])
    axis.axhline(0, color="black", lw=0.8)
    axis.set_xticks(range(len(entries)), list(entries))
    known = METRICS.get(metric)
    better = "" if known is None else ", more is better" if known.higher else ", less is better"
    axis.set(title=f"{metric}, n = {next(iter(entries.values()))['n']:,}; whiskers: one standard error", ylabel=f"nats{better}")
    axis.set_xlim(-0.6, len(entries) - 0.4)
    axis.margins(y=0.15)
    handles = {label: handle for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)}  # one of each kind
    axis.legend([handles[k] for k in BARS.values() if k in handles], [k for k in BARS.values() if k in handles], **LEGEND)


def _bar(axis: Any, x: float, value: float, error: float, colour: str, label: str) -> None:
    """A bar with its number, and a whisker where the error is known."""
    if not math.isfinite(value):
        return
    axis.bar(x, value, WIDTH * 0.92, color=colour, label=label, yerr=error or None, capsize=3)
    offset, side = ((0, 3), "bottom") if value >= 0 else ((0, -3), "top")
    end = value + math.copysign(error, value)
    axis.annotate(show(value), (x, end), offset, textcoords="offset points", ha="center", va=side, fontsize=8)


def with_error(key: str, entry: Mapping[str, Any]) -> tuple[float, float]:
    """A value of an entry and its standard error, 0 where it is not known."""
    value = entry[key]
    if isinstance(value, list | tuple):
        return float(value[0]), float(value[1])
    return float(value), standard_error(entry) if key == "value" else 0.0
