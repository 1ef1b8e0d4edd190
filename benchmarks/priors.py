"""Is a learned prior p(z|c) worse than N(0, I)? Test ELBO of `cvae-mnist` with each, over seeds, trained alike.

    python benchmarks/priors.py [--seeds 3] [--steps 6000] [--out benchmarks/results/cvae-prior.json]

The difference is taken seed by seed: both start from the same seed and see the same order of pictures.
"""

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path

from condgen import api
from condgen.evaluation.protocols import evaluate, machine, versions
from condgen.model import Run, Sampler


def test_elbo(run: Run, n: int) -> dict[str, float]:
    """The test ELBO in nats and the class consistency of one training."""
    began, last = time.perf_counter(), None
    for step in api.train(run):
        last = step.state
    assert last is not None
    assert isinstance(last.model, Sampler)
    seconds = time.perf_counter() - began
    found = evaluate(last.model, run, metrics=("elbo", "class_consistency"), n=n)["metrics"]
    return {"elbo": found["elbo"]["value"], "class_consistency": found["class_consistency"]["value"], "seconds": round(seconds, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("-n", type=int, default=10000)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    presets = {"learned": "cvae-mnist", "fixed": "cvae-mnist-fixed-prior"}
    rows = []
    for seed in range(given.seeds):
        row = {"seed": seed}
        for kind, name in presets.items():
            run = replace(api.preset(name), data=given.data, seed=seed, steps=given.steps)
            row |= {f"{kind} {k}": v for k, v in test_elbo(run, given.n).items()}
        row["difference in nats"] = row["learned elbo"] - row["fixed elbo"]
        rows.append(row)
        print(json.dumps(row), flush=True)
    differences = [r["difference in nats"] for r in rows]
    summary = {"mean difference in nats": statistics.fmean(differences), "least": min(differences)}
    result = {"benchmark": "cvae-prior", "steps": given.steps, "by_seed": rows, **summary, "machine": machine(), "versions": versions()}
    print(json.dumps(summary, indent=1))
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
