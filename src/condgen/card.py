"""The model card: everything in it comes from the run."""

import inspect
import json
from collections.abc import Mapping
from typing import Any

from condgen.conditions import Attributes, Condition, Label, say
from condgen.model import Model, capabilities


def card(config: Mapping[str, Any], model: Model, facts: Mapping[str, Any], name: str) -> str:
    """README.md of a saved model, in Markdown with front matter.

    Args:
        config: as in config.json.
        facts: "run" (JSON of the run), "data" (fingerprint), "step", "seconds", "evaluation" (as in evaluation.json), "repo_id";
            each may be absent.
        name: of the folder, for the snippet.
    """
    run = facts.get("run") or {}
    parts = [
        _front(config, facts, run),
        f"# {run.get('name') or config['model']}\n\n{inspect.cleandoc(inspect.getmodule(type(model)).__doc__ or '')}",
        "## What can be asked\n\n" + (_vocabulary(model) or "Nothing: the model draws from the whole of its data."),
        "## Use\n\n```python\n" + snippet(model, facts.get("repo_id") or name) + "```",
        "## Training\n\n" + _training(config, facts, run),
        "## Evaluation\n\n" + _evaluation(facts.get("evaluation")),
        "## Limits\n\n" + _limits(model),
    ]
    return "\n\n".join(parts) + "\n"


def snippet(model: Model, name: str) -> str:
    """Python that loads the model from the folder (or hub) `name` and uses it."""
    lines = ["import condgen", "", f"model = condgen.load({name!r})"]
    if "sample" in capabilities(model):
        asked = {k: say(c, model.rows[k][0]) for k, c in model.schema.items() if isinstance(c, Label)}
        lines.append(f"x = model.sample({asked!r}, n=16, seed=0)  # float (16, {', '.join(map(str, model.shape))})")
    elif "translate" in capabilities(model):
        label, shape = next(c for c in model.schema.values() if isinstance(c, Label)), ", ".join(map(str, model.shape))
        lines.append(f"y = condgen.api.translate(model, x, {label.names[-1]!r})  # x float (n, {shape}) in [-1, 1]")
    else:
        lines.append(f"print(model)  # it can: {', '.join(capabilities(model)) or 'be trained'}")
    return "\n".join(lines) + "\n"


def _front(config: Mapping[str, Any], facts: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    tags = ["image-generation" if len(config["shape"]) == 3 else "density", config["model"].split(".")[0]]
    tags += ["conditional"] if config["schema"] else []
    lines = ["---", "library_name: condgen", f"tags: {json.dumps(tags)}"]
    lines += [f"datasets: {json.dumps([run['data']])}"] if run.get("data", "/").isidentifier() else []
    metrics = (facts.get("evaluation") or {}).get("metrics", {})
    lines += [f"metrics: {json.dumps(sorted(metrics))}"] if metrics else []
    return "\n".join([*lines, "---"])


def _vocabulary(model: Model) -> str:
    rows = [f"| `{_cell(name)}` | {type(c).__name__} | {_cell(values_of(c))} |" for name, c in model.schema.items()]
    return "\n".join(["| condition | kind | values |", "|---|---|---|", *rows]) if rows else ""


def values_of(c: Condition) -> str:
    """The values of a condition, in words: of a Label its first 40 names."""
    if isinstance(c, Label):
        return ", ".join(c.names[:40]) + (f" ... ({len(c.names)} in all)" if len(c.names) > 40 else "")
    if isinstance(c, Attributes):
        ranges = ["0 or 1" if b else f"{lo:g} to {hi:g}" for lo, hi, b in zip(c.low, c.high, c.binary, strict=True)]
        return ", ".join(f"{n} ({r})" for n, r in zip(c.names, ranges, strict=True))
    return f"shape {c.shape}"


def _training(config: Mapping[str, Any], facts: Mapping[str, Any], run: Mapping[str, Any]) -> str:
    rows = {
        "model": f"`{config['model']}` {json.dumps(config['options'])}",
        "data": f"{run.get('data', 'not recorded')}, {run.get('split', '')}; SHA-256 {facts.get('data', 'not recorded')}",
        "source": run.get("source") or "not recorded",
        "steps": f"{facts.get('step', 'not recorded')} of batch {run.get('batch', 'not recorded')}, seed {run.get('seed', 'not recorded')}",
        "optimisers": "; ".join(f"{p}: {o['kind']} lr {o['lr']:g}, {o['schedule']}" for p, o in run.get("optimizers", {}).items()),
        "precision": run.get("precision", "not recorded"),
        "average of weights": f"half-life {run['half_life_images']:g} samples" if run.get("half_life_images") else "none",
        "time": f"{facts['seconds']:.0f} s" if "seconds" in facts else "not recorded",
        "condgen": config["version"],
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {k} | {_cell(v)} |" for k, v in rows.items())])


def _evaluation(evaluation: Mapping[str, Any] | None) -> str:
    if not evaluation:
        return "Not evaluated yet: `condgen evaluate` measures it and fills this section."
    shown = ("value", "reported", "ceiling", "control")
    rows = [
        " | ".join(["", name, *(_show(m[k]) for k in shown), str(m["n"]), f"`{_cell(m['provenance'])}`", ""]).strip()
        for name, m in evaluation["metrics"].items()
    ]
    head = ["| metric | measured | paper | real data | control | n | provenance |", "|---|---|---|---|---|---|---|"]
    return "\n".join(head + rows) + f"\n\nMeasured on {evaluation['machine']}, seed {evaluation['seed']}."


def _cell(text: object) -> str:
    """Text for a cell of a table: on one line, and no bar of it ends the cell."""
    return " ".join(str(text).split()).replace("|", "\\|")


def _show(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return " +- ".join(f"{v:.4g}" for v in value)
    return f"{value:.4g}" if isinstance(value, (int, float)) else "-"


def _limits(model: Model) -> str:
    text = f"Samples have the shape {model.shape} and resemble the training data: what that data lacks or distorts, so does the model."
    return text + " The conditions are those listed above; nothing else can be asked. Not meant for decisions about people."
