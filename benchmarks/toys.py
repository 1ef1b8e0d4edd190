"""Two claims that a toy can decide: what D's head can learn of conditions, and what pi decides.

    python benchmarks/toys.py [--seeds 3] [--out benchmarks/results/toys.json]

Heads: four classes of points in the corners of a square, `gauthier.Gauthier` with each head; the share of 1,000 samples drawn in
the corner asked for. Chance is 25 %. Pi: one normal of learnt mean and deviation on .7 N(-2, .5^2) + .3 N(2, .5^2), beside the
normal that minimises JS_pi by quadrature.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from condgen import api
from condgen.conditions import Label
from condgen.data.store import Content, Dataset
from condgen.evaluation.divergences import fit
from condgen.evaluation.mixtures import MIXTURES
from condgen.evaluation.protocols import machine, versions
from condgen.model import Optimizer, Run
from condgen.models.gauthier import HEADS, Gauthier
from condgen.training import loop

QUIET: dict[str, Any] = {"save_every": 0, "sample_every": 0, "log_every": 0, "precision": "32"}


def corners(n: int = 4000) -> Dataset:
    draw = torch.Generator().manual_seed(0)
    k = torch.randint(4, (n,), generator=draw)
    x = 2 * torch.tensor([[1.0, 1], [1, -1], [-1, 1], [-1, -1]])[k] + 0.2 * torch.randn(n, 2, generator=draw)
    return Dataset("corners", "train", Content(x.numpy(), {"k": k}, {"k": Label(("a", "b", "c", "d"))}))


def consistency(head: str, seed: int) -> float:
    """Share of samples in the corner that was asked for."""
    options: dict[str, Any] = {"head": head, "z_dim": 4, "width": 32, "dense": 32, "r1": 0.1}
    adam = {"*": Optimizer(lr=2e-3, betas=(0.0, 0.99))}
    run = Run("gauthier.Gauthier", "corners", options, adam, batch=128, steps=1500, seed=seed, **QUIET)
    data = corners()
    torch.manual_seed(seed)
    model = Gauthier((2,), data.schema, **options)
    for _ in loop.train(run, model, data):
        pass
    asked = torch.arange(4).repeat(250)
    x = model.sample({"k": asked}, seed=seed)
    return float((2 * (x[:, 0] < 0).long() + (x[:, 1] < 0).long() == asked).float().mean())


def learnt(pi: float, seed: int) -> dict[str, float]:
    """Mean and deviation of the trained normal, averaged over the last steps."""
    run = api.preset("pigan-mixture1d")
    run = replace(run, options={**run.options, "pi": pi}, steps=2500, batch=128, half_life_images=10_000, seed=seed, metrics=(), **QUIET)
    data = api.dataset(run)
    *_, last = loop.train(run, api.build(run, data), data)
    assert last.state.ema is not None
    last.state.ema.swap()
    normal: Any = last.state.model.G
    return {"mean": normal.mean.item(), "std": normal.log_std.exp().item()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=None)
    given = parser.parse_args()
    began, seeds = time.perf_counter(), range(given.seeds)
    heads = {head: [consistency(head, seed) for seed in seeds] for head in HEADS}
    print(json.dumps(heads), flush=True)
    pis = {}
    for pi in (0.05, 0.9):
        best = fit(MIXTURES["A"], "js", pi=pi)
        pis[f"{pi:g}"] = {"quadrature": {"mean": float(best.mean), "std": best.sigma}, "trained": [learnt(pi, seed) for seed in seeds]}
        print(json.dumps(pis[f"{pi:g}"]), flush=True)
    result = {"benchmark": "toys", "consistency_by_head": heads, "chance": 0.25, "normal_by_pi": pis}
    result |= {"seconds": round(time.perf_counter() - began, 1), "machine": machine(), "versions": versions()}
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
