"""Does pi trade recall for precision? `pigan-omniglot` at three pi and over seeds, each with a confidence interval.

    python benchmarks/pigan.py [--pi .1 .5 .9] [--seeds 3] [--steps N] [--runs runs/pigan] [--out benchmarks/results/pigan-omniglot-pi.json]

Precision and recall (k = 3, 2,000 samples beside 2,000 training pictures, features of the judge), one-shot accuracy and retrieval of
what D has learnt. Intervals are Student's at 95 % over seeds. Two settings *separate* where the interval of their difference leaves out
0; published effects of this size are often within noise, and then that is the result. Trainings are kept under --runs and resumed, and
so is what was measured (row.json), used again where its steps and options are those of the run.
"""

import argparse
import json
import math
import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from condgen import api
from condgen.errors import BadInput, require_whole
from condgen.evaluation.judge import judge_for
from condgen.evaluation.neighbours import neighbours
from condgen.evaluation.protocols import evaluate, machine, versions
from condgen.model import Run

PICTURES, K = 2000, 3
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""97.5 % quantiles by degrees of freedom."""
CLAIMS = [("precision", 0.9, 0.1), ("recall", 0.1, 0.9), ("one_shot_accuracy", 0.1, 0.9), ("retrieval_map", 0.1, 0.9)]
"""What is said to be larger, at which pi than at which other: a large pi for good samples, a small one for retrieval."""


def planned(pi: float, seed: int, steps: int | None = None) -> Run:
    preset = api.preset("pigan-omniglot")
    return replace(preset, options={**preset.options, "pi": pi}, seed=seed, steps=steps or preset.steps)


def facts(run: Run) -> dict[str, Any]:
    """What a row must share with a run, as JSON gives it back."""
    return json.loads(json.dumps({"steps": run.steps, "options": dict(run.options)}))


def kept(file: Path, run: Run) -> dict[str, Any] | None:
    """The row that lies there, if it is of this run; one that says nothing of its run is of the preset as it stands."""
    if not file.exists():
        return None
    row = json.loads(file.read_text())
    told = row.setdefault("run", facts(planned(row["pi"], row["seed"])))
    return row if told == facts(run) else None


def measured(pi: float, seed: int, steps: int | None, runs: Path) -> dict[str, Any]:
    """One training, or the one that lies in `runs` already, and its measures. Raises BadInput where a longer one lies there."""
    run, out = planned(pi, seed, steps), runs / f"pi{pi:g}-seed{seed}"
    if row := kept(out / "row.json", run):
        return row
    for _ in api.train(run, out):
        pass
    model, train = api.load(out), api.dataset(run)
    if (done := model.facts["step"]) != run.steps:
        raise BadInput(f"{out} was trained for {done} steps, {run.steps} are asked: give other --runs")
    rows = torch.randperm(len(train), generator=torch.Generator().manual_seed(0))[:PICTURES]
    judge = judge_for(train, api.dataset(run, "test"))
    drawn = model.sample(n=PICTURES, seed=seed)  # type: ignore[operator]
    near = neighbours(judge.features(train.batch(rows).x), judge.features(drawn), k=K)
    found = evaluate(model, run, metrics=("one_shot_accuracy", "retrieval_map"), seed=seed)["metrics"]
    row = {"pi": pi, "seed": seed, "run": facts(run), "precision": near.precision, "recall": near.recall}
    row |= {name: m["value"] for name, m in found.items()} | {"controls": {name: m["control"] for name, m in found.items()}}
    said = {"precision, recall": f"{judge.id}|k={K}|n={PICTURES}/{PICTURES} training pictures"}
    row["provenance"] = said | {name: m["provenance"] for name, m in found.items()}
    (out / "row.json").write_text(json.dumps(row))
    return row


def interval(values: list[float]) -> dict[str, float]:
    """Mean and half the width of its 95 % interval, of 2 to 10 values."""
    half = STUDENT[len(values) - 1] * statistics.stdev(values) / math.sqrt(len(values))
    return {"mean": statistics.fmean(values), "half_width": half}


def verdict(mean: float, half_width: float | None) -> str:
    if half_width is None or abs(mean) <= half_width:
        return "within noise"
    return "separates as said" if mean > 0 else "separates the other way round"


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means by pi, and for each claim the difference seed by seed."""
    at = {pi: [r for r in rows if r["pi"] == pi] for pi in sorted({r["pi"] for r in rows})}
    names = [n for n in ("precision", "recall", "one_shot_accuracy", "retrieval_map") if all(n in r for r in rows)]
    means = {f"{pi:g}": {name: interval([r[name] for r in own]) for name in names} for pi, own in at.items()}
    claims = {}
    for name, larger, smaller in CLAIMS:
        if name in names and larger in at and smaller in at:
            differences = [a[name] - b[name] for a, b in zip(at[larger], at[smaller], strict=True)]
            found = interval(differences)
            claims[f"{name}: pi {larger:g} above {smaller:g}"] = found | {"verdict": verdict(found["mean"], found["half_width"])}
    return {"by_pi": means, "claims": claims}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pi", type=float, nargs="+", default=[0.1, 0.5, 0.9])
    parser.add_argument("--seeds", type=int, default=3, help="2 to 10: one seed has no interval")
    parser.add_argument("--steps", type=int, default=None)
    parser.add_argument("--runs", type=Path, default=Path("runs/pigan"))
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    try:
        require_whole("--seeds", given.seeds, 2, len(STUDENT) + 1)
    except BadInput as error:
        parser.error(str(error))
    rows = []
    for seed in range(given.seeds):
        for pi in given.pi:
            rows.append(measured(pi, seed, given.steps, given.runs))
            print(json.dumps({k: v for k, v in rows[-1].items() if not isinstance(v, dict)}), flush=True)
    result = {"benchmark": "pigan-omniglot-pi", **summary(rows), "by_run": rows, "machine": machine(), "versions": versions()}
    print(json.dumps(summary(rows), indent=1))
    if given.out:
        given.out.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
