"""Two results side by side, as far as they were measured alike.

A difference means something where both values were measured by one protocol: the same features, the same judge, as many
samples, the same data. All that is written in the provenance, so what cannot be compared is refused with the field that differs,
and no difference is given. Fields that tell an outcome (`measuring.OUTCOMES`) do not count.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from condgen import models
from condgen.errors import BadInput, unknown
from condgen.evaluation.measuring import OUTCOMES
from condgen.evaluation.protocols import METRICS, metric_of
from condgen.evaluation.report import show

Result = Mapping[str, Any]


class Row(NamedTuple):
    """One metric of both: values a and b, b - a, and whose is better: "first", "second", or "" where they are equal or nobody knows."""

    name: str
    a: float
    b: float
    difference: float
    better: str


class Comparison(NamedTuple):
    """What can be compared, in the order of the first result; and metric -> why not, for the rest."""

    rows: list[Row]
    refused: dict[str, str]


def compare(first: Any, second: Any, metrics: Iterable[str] | None = None) -> Comparison:
    """Compare two results, metric by metric.

    Args:
        first, second: what `evaluate` answers, or where it lies: a run's folder, an evaluation.json, a file of benchmarks/results.
        metrics: names; a family's name stands for its parts as well. By default all that either has.

    Raises:
        BadInput: for what is no result, and for a metric that does not exist.
    """
    a, b = read_result(first), read_result(second)
    entries, others = a["metrics"], b["metrics"]
    names = list(entries) + [name for name in others if name not in entries]
    if metrics:
        names = [part for name in metrics for part in _parts(name, names)]
    elsewhere = _other_data(a, b)
    rows, refused = [], {}
    for name in names:
        why = elsewhere or _absent(name, entries, others) or refusal(entries[name], others[name])
        if why:
            refused[name] = why
        else:
            rows.append(_row(name, entries[name]["value"], others[name]["value"]))
    return Comparison(rows, refused)


def refusal(a: Mapping[str, Any], b: Mapping[str, Any]) -> str | None:
    """Why two measures of a metric, entries of `metrics` in a result, cannot be compared; None where they can.

    >>> refusal({"n": 9, "provenance": "kernel|judge-v2:3fa9c1|n=9"}, {"n": 9, "provenance": "kernel|judge-v2:77ab01|n=9"})
    'judge-v2:3fa9c1 against judge-v2:77ab01'
    """
    ours, theirs = protocol(a["provenance"]), protocol(b["provenance"])
    mine, other = [f for f in ours if f not in theirs], [f for f in theirs if f not in ours]
    if mine or other:
        return f"{', '.join(mine) or 'nothing of the kind'} against {', '.join(other) or 'nothing of the kind'}"
    return f"n={a['n']} against n={b['n']}" if a["n"] != b["n"] else None


def protocol(provenance: str) -> list[str]:
    """The fields that say how something was measured, without those that say what came out.

    >>> protocol("parzen|pixels in [0,1]|n=1000/359|sigma=0.143, ceiling 0.158|v1|control=the mean picture alone|s.e.=0.835")
    ['parzen', 'pixels in [0,1]', 'n=1000/359', 'v1']
    """
    return [field for field in provenance.split("|") if not field.startswith(OUTCOMES)]


def _row(name: str, a: float, b: float) -> Row:
    metric = metric_of(name)
    if metric is None or a == b:
        return Row(name, a, b, b - a, "")
    if metric.near is not None:
        gain = abs(a - metric.near) - abs(b - metric.near)
    else:
        gain = b - a if metric.higher else a - b
    return Row(name, a, b, b - a, "second" if gain > 0 else "first" if gain < 0 else "")


def _parts(asked: str, names: list[str]) -> list[str]:
    """The asked name and, of a family, its parts. Raises BadInput for a name that neither result has and no metric bears."""
    found = [name for name in names if name == asked or name.startswith(f"{asked}/")]
    if not found and asked not in METRICS:
        raise unknown("metric", asked, dict.fromkeys([*names, *METRICS]))
    return found or [asked]


def _absent(name: str, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str | None:
    if name in ours and name in theirs:
        return None
    return "neither has it" if name not in ours and name not in theirs else f"only the {'first' if name in ours else 'second'} has it"


def text(found: Comparison) -> str:
    """Plain text: a table of what can be compared, then a line for each metric that cannot."""
    head = ("metric", "first", "second", "difference", "better")
    rows = [head, *((r.name, show(r.a), show(r.b), f"{'+' if r.difference > 0 else ''}{show(r.difference)}", r.better) for r in found.rows)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(head))]
    lines = ["  ".join(c.ljust(w) if i in (0, 4) else c.rjust(w) for i, (c, w) in enumerate(zip(r, widths, strict=True))) for r in rows]
    table = "\n".join(line.rstrip() for line in lines) if found.rows else "nothing can be compared"
    return "\n".join([table, *([""] if found.refused else []), *(f"{name} is not compared: {why}" for name, why in found.refused.items())])


# --- where results lie ----------------------------------------------------------------------------------------------------


def read_result(source: Any) -> dict[str, Any]:
    """A result from itself, its file, or a run's folder. Raises BadInput where there is none."""
    if isinstance(source, Mapping):
        return _checked(dict(source), "the result")
    path = Path(source)
    file = path / "evaluation.json" if path.is_dir() else path
    if not file.is_file():
        remedy = f"`condgen evaluate {path}` writes it" if path.is_dir() else "expected a run's folder, or a file that holds a result"
        raise BadInput(f"there is no {file}: {remedy}")
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise BadInput(f"{file} cannot be read as a result: {error}") from None
    return _run_of(path) | _checked(found, str(file))


def _run_of(folder: Path) -> dict[str, Any]:
    """The data and the size that a run's folder tells; nothing where it tells none."""
    try:
        run = json.loads((folder / "run.json").read_text(encoding="utf-8"))["run"]
        return {"data": run["data"], "size": run["size"]}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _checked(found: Any, what: str) -> dict[str, Any]:
    metrics = found.get("metrics") if isinstance(found, dict) else None
    if not isinstance(metrics, Mapping):
        raise BadInput(f"{what} holds no result: expected what `condgen evaluate` writes, with `metrics`")
    for name, entry in metrics.items():
        if not isinstance(entry, Mapping) or not {"value", "n", "provenance"} <= entry.keys():
            raise BadInput(f"{what} holds no result: {name!r} lacks a value, an n or a provenance")
    return found


def _other_data(a: Result, b: Result) -> str | None:
    """Why no metric of the two can be compared: they were measured on other data, as far as it is known of both."""
    ours, theirs = _data_of(a), _data_of(b)
    return f"measured on {ours} against {theirs}" if ours and theirs and ours != theirs else None


def _data_of(result: Result) -> str | None:
    """The data of the run, or of the preset that it bears the name of; None where neither is known."""
    data, size = result.get("data"), result.get("size")
    if data is None and (run := models.presets().get(result.get("preset") or "")):
        data, size = run.data, run.size
    return None if data is None else f"{data} at {size} px" if size else str(data)
