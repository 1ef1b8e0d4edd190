"""What an evaluation found: a table for the terminal, and a page that holds its own pictures and asks nothing of the network."""

import html
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condgen.card import values_of
from condgen.conditions import Label
from condgen.evaluation.curves import curves_svg, points_svg
from condgen.evaluation.grids import class_grid, class_values, data_uri, grid, png, scale_for
from condgen.evaluation.protocols import Metric, metric_of
from condgen.model import Model, Run, capabilities

COLUMNS = 10
COLUMN_KEYS = ("value", "reported", "ceiling", "control", "n")
HEADLINES = {
    "class_consistency": "class consistency",
    "condition_correlation": "correlation of what was asked and what is shown",
    "elbo": "test ELBO",
    "frechet": "Fréchet distance",
    "reconstruction": "reconstruction error",
}
"""The metric that sums up an evaluation is the first of these that it has."""


def show(value: Any) -> str:
    """A number as a person reads it; a pair is a value and its standard error; nothing is a dash.

    >>> show(0.98765), show(-101.26), show((132, 1.8)), show(None)
    ('0.988', '-101.3', '132 ± 1.8', '–')
    """
    if value is None:
        return "–"
    if isinstance(value, list | tuple):
        return " ± ".join(f"{v:g}" for v in value)  # as the paper prints it
    if isinstance(value, str) or not math.isfinite(value):
        return str(value)
    if isinstance(value, int):
        return str(value)
    digits = next((d for least, d in ((100, 1), (10, 2), (0.01, 3)) if abs(value) >= least), None)
    return f"{value:.3g}" if digits is None and value else f"{value:.{digits or 3}f}"


def table(evaluation: Mapping[str, Any]) -> str:
    """Plain text: a line on class consistency, then every metric with what the paper reports, its ceiling and its control."""
    head = ("metric", "measured", "paper", "real data", "control", "n")
    rows = [(name, *(show(m[k]) for k in COLUMN_KEYS)) for name, m in evaluation["metrics"].items()]
    widths = [max(len(r[i]) for r in [head, *rows]) for i in range(len(head))]
    lines = [headline(evaluation), ""] if headline(evaluation) else []
    for row in [head, *rows]:
        lines.append("  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]))
    return "\n".join([*lines, "", f"{evaluation['seconds']} s on {evaluation['machine']}, seed {evaluation['seed']}"])


def headline(evaluation: Mapping[str, Any]) -> str:
    """The result in one sentence, "" where there is nothing to say it of."""
    metrics = evaluation["metrics"]
    name = next((n for n in HEADLINES if n in metrics), None)
    if name is None:
        return ""
    m = metrics[name]
    has_ceiling = m["ceiling"] is not None and name != "reconstruction"
    ceiling = f" (ceiling {show(m['ceiling'])}: real data in the samples' place)" if has_ceiling else ""
    return f"{HEADLINES[name]} {show(m['value'])}{ceiling}, control {show(m['control'])}, n = {m['n']}"


def write_report(
    folder: str | Path, evaluation: Mapping[str, Any], model: Model, run: Run, metrics_jsonl: str | Path | None, real: Any
) -> Path:
    """Write `folder/report.html`, one file that needs nothing else.

    Args:
        folder: a run's.
        evaluation: as `protocols.evaluate` answers.
        model: that was measured.
        run: how it was trained.
        metrics_jsonl: the run's `metrics.jsonl`, one JSON object a line; it may be absent.
        real: the test split, for the real pictures beside the samples.

    Returns:
        the file.
    """
    title = evaluation["preset"] or run.model
    sections = [
        ("Measured", _table(evaluation)),
        ("Samples", _pictures(model, real)),
        ("Training", _training(metrics_jsonl)),
        ("What can be asked", _vocabulary(model)),
        ("How it was trained", _run(run)),
        ("Provenance", _provenance(evaluation)),
    ]
    body = "".join(f"<section><h2>{name}</h2>{content}</section>" for name, content in sections if content)
    page = PAGE.format(title=html.escape(title), headline=html.escape(headline(evaluation)), sub=html.escape(_about(run)), body=body)
    file = Path(folder) / "report.html"
    draft = file.with_name(".report.html.part")
    draft.write_text(page, encoding="utf-8")
    draft.replace(file)
    return file


def _about(run: Run) -> str:
    return f"{run.model} on {run.data}" + (f" · {run.source}" if run.source else "")


def _cells(kind: str, cells: list[str], numbers_from: int = 1) -> str:
    return "<tr>" + "".join(f"<{kind}{' class=n' if i >= numbers_from else ''}>{c}</{kind}>" for i, c in enumerate(cells)) + "</tr>"


def _table(evaluation: Mapping[str, Any]) -> str:
    head = _cells("th", ["metric", "measured", "paper", "real data", "control", "n"])
    rows = [_metric_row(name, m) for name, m in evaluation["metrics"].items()]
    return _wide([head, *rows]) + NOTE if rows else "<p>Nothing can be measured of it.</p>"


def _wide(rows: list[str]) -> str:
    return f"<div class=wide><table>{''.join(rows)}</table></div>"


NOTE = """<p class=note>↑ more is better, ↓ less is, → 1: nearest to 1 is. <em>Real data</em> is the ceiling: real samples in the place
of the model's, marked in the bar. The <em>control</em> is known to be bad; the provenance names it.</p>"""


def _metric_row(name: str, m: Mapping[str, Any]) -> str:
    known, (whole, _, part) = metric_of(name), name.partition("/")
    about = f"<br><small>{html.escape(known.about)}</small>" if known else ""
    label = f"<span class=part>{html.escape(part)}</span>" if part else f"<b>{html.escape(name)}</b> {_arrow(known)}{about}"
    bar = _bar(m) if whole in SHARES else ""
    numbers = [html.escape(show(m[k])) for k in COLUMN_KEYS]
    return _cells("td", [label, f"<b>{numbers[0]}</b>{bar}", *numbers[1:]])


def _arrow(known: Metric | None) -> str:
    if known is None:
        return ""
    return f"→ {known.near:g}" if known.near is not None else "↑" if known.higher else "↓"


SHARES = ("class_consistency", "class_consistency_worst", "condition_correlation", "diversity_ratio", "precision", "recall", "coverage")
"""Metrics that lie between 0 and 1, shown with a bar."""


def _bar(m: Mapping[str, Any]) -> str:
    full = f"{100 * min(1.0, max(0.0, m['value'])):.1f}%"
    mark = f'<u style="left:{100 * min(1.0, m["ceiling"]):.1f}%"></u>' if m["ceiling"] is not None else ""
    return f'<span class=bar><i style="width:{full}"></i>{mark}</span>'


def _pictures(model: Model, real: Any) -> str:
    if "sample" not in capabilities(model):
        return _reconstructions(model, real)
    drawn = class_grid(model, COLUMNS)
    if len(model.shape) != 3:
        return _svg(points_svg(drawn, real.batch(torch.arange(min(len(real), 1000))).x), "samples and real points")
    beside, names = _real_beside(model, real, len(drawn))
    rows = f"<p class=note>Rows: {html.escape(', '.join(names))}.</p>" if names else ""
    if names:
        rows += "<p class=note>The same latents run down each column of samples.</p>"
    figures = _figure(drawn, "samples of the model") + _figure(beside, "real pictures, from the test split")
    return f"<div class=pair>{figures}</div>{rows}"


def _reconstructions(model: Model, real: Any) -> str:
    """For a model that encodes and does not sample: pictures over what it makes of them."""
    if not {"encode", "decode"} <= set(capabilities(model)) or len(model.shape) != 3:
        return ""
    some = real.batch(torch.arange(min(len(real), 5 * COLUMNS)) * (len(real) // min(len(real), 5 * COLUMNS)))
    values = {name: some.c[name].to(model.device) for name in model.schema}
    with torch.no_grad():
        back = model.decode(model.encode(some.x.to(model.device), values), values).cpu()  # type: ignore[operator]
    return f"<div class=pair>{_figure(back, 'reconstructions')}{_figure(some.x, 'real pictures, from the test split')}</div>"


def _real_beside(model: Model, real: Any, n: int) -> tuple[Tensor, list[str]]:
    """n real pictures in the order of the samples' classes, and the names of the rows."""
    name = next((k for k, c in model.schema.items() if isinstance(c, Label)), None)
    if name is None:
        return real.batch(torch.arange(n) * max(1, len(real) // n) % len(real)).x, []
    asked, labels = class_values(model, COLUMNS)[name], real.values()[name]
    condition = model.schema[name]
    assert isinstance(condition, Label)
    rows = []
    for k in asked.unique():
        own = (labels == k).nonzero().flatten()
        own = own if len(own) else torch.zeros(1, dtype=torch.int64)
        rows.append(own[torch.arange(COLUMNS) % len(own)])
    return real.batch(torch.cat(rows)).x, [condition.names[int(k)] for k in asked.unique()]


def _figure(x: Tensor, caption: str) -> str:
    uri = data_uri(png(grid(x, COLUMNS), scale_for(max(x.shape[2:]), 40)))
    return f'<figure><img src="{uri}" alt="{html.escape(caption)}"><figcaption>{html.escape(caption)}</figcaption></figure>'


def _svg(drawing: str, caption: str) -> str:
    return f"<figure>{drawing}<figcaption>{html.escape(caption)}</figcaption></figure>"


def _training(metrics_jsonl: str | Path | None) -> str:
    history = read_history(metrics_jsonl) if metrics_jsonl else {}
    return "".join(_svg(drawing, "over training steps") for drawing in [curves_svg(history)]) if history else ""


def read_history(file: str | Path) -> dict[str, list[tuple[float, float]]]:
    """term -> (step, value) pairs of a `metrics.jsonl`; a line cut off by a crash is passed over, an absent file is empty."""
    found: dict[str, list[tuple[float, float]]] = {}
    path = Path(file)
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            entry = json.loads(line)
            step = float(entry["step"])
        except (ValueError, KeyError, TypeError):
            continue
        for name, value in entry.items():
            if "/" in name and isinstance(value, int | float) and math.isfinite(value):
                found.setdefault(name, []).append((step, float(value)))
    return found


def _vocabulary(model: Model) -> str:
    rows = [
        _cells("td", [f"<code>{html.escape(k)}</code>", type(c).__name__, html.escape(values_of(c))], 9) for k, c in model.schema.items()
    ]
    return _wide([_cells("th", ["condition", "kind", "values"], 9), *rows]) if rows else ""


def _run(run: Run) -> str:
    return f"<details><summary>the run, in full</summary><pre>{html.escape(json.dumps(run.to_json(), indent=1))}</pre></details>"


def _provenance(evaluation: Mapping[str, Any]) -> str:
    told: dict[str, str] = {}
    for m in evaluation["metrics"].values():  # the parts of a family share theirs, but for the standard error
        told.setdefault(m["provenance"].split("|s.e.=")[0], m["provenance"])
    lines = "".join(f"<li><code>{html.escape(one)}</code></li>" for one in told.values())
    versions = ", ".join(f"{k} {v}" for k, v in evaluation["versions"].items())
    about = f"{evaluation['seconds']} s on {evaluation['machine']}, seed {evaluation['seed']}; {versions}"
    return f"<ul>{lines}</ul><p class=note>{html.escape(about)}</p>"


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>
:root {{ color-scheme: light dark; --ground: #fbfbf9; --card: #ffffff; --ink: #1c1e21; --soft: #62676e; --line: #e3e4e0;
  --accent: #1f6f8b; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ground: #15171a; --card: #1d2024; --ink: #e8e9ea; --soft: #9aa1a9; --line: #31363c; --accent: #63b5d1; }}
}}
* {{ box-sizing: border-box; }}
body {{ margin: 0 auto; max-width: 62rem; padding: 2.5rem 1.25rem 4rem; background: var(--ground); color: var(--ink);
  font: 15px/1.55 system-ui, -apple-system, "Segoe UI", sans-serif; }}
h1 {{ font-size: 1.7rem; margin: 0; letter-spacing: -.01em; }} h2 {{ font-size: 1.05rem; margin: 0 0 .9rem; }}
.lead {{ font-size: 1.1rem; margin: .6rem 0 .2rem; }} .note, small, figcaption {{ color: var(--soft); font-size: .86rem; }}
section {{ background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 1.25rem 1.4rem; margin-top: 1.25rem; }}
.wide {{ overflow-x: auto; }} table {{ border-collapse: collapse; width: 100%; }}
th {{ text-align: left; font-weight: 500; color: var(--soft); font-size: .86rem; }}
td, th {{ padding: .45rem .9rem .45rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }}
tr:last-child td {{ border-bottom: 0; }}
.part {{ padding-left: 1.2rem; color: var(--soft); }}
.n {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }}
.bar {{ display: block; position: relative; height: 4px; margin-top: .3rem; min-width: 6rem; border-radius: 2px; background: var(--line); }}
.bar i {{ display: block; height: 4px; border-radius: 2px; background: var(--accent); }}
.bar u {{ position: absolute; top: -3px; width: 2px; height: 10px; margin-left: -1px; background: var(--ink); }}
.pair {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(16rem, 1fr)); gap: 1.25rem; }}
figure {{ margin: 0; }} figure img {{ width: 100%; image-rendering: pixelated; border-radius: 4px; display: block; }}
figure svg {{ width: 100%; height: auto; color: var(--ink); }} figcaption {{ margin-top: .4rem; }}
code, pre {{ font: 12.5px/1.5 ui-monospace, Menlo, Consolas, monospace; overflow-wrap: anywhere; }} pre {{ overflow-x: auto; }}
ul {{ padding-left: 1.1rem; margin: 0; }} summary {{ cursor: pointer; }}
</style></head><body>
<h1>{title}</h1><p class=lead>{headline}</p><p class=note>{sub}</p>
{body}
</body></html>
"""
