"""How near a training step comes to the machine: the arithmetic of a step, over its time, over what the machine's own kernels reach.

The rates of the machine are those of one large matrix product and of one 3x3 convolution of 64 channels at 32 px, forward alone,
channels last, such as the net's own; both are measured in this run. The arithmetic of a step is counted by PyTorch's flop counter
(a multiply and an add are two).

    python benchmarks/limits.py [--batch 128] [--out benchmarks/results/limits.json]
"""

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from condgen import api
from condgen.model import Run
from condgen.training import loop
from condgen.training.state import State
from train_step import bench_run, publish


def seconds(work: Callable[[], object], repeats: int = 10) -> float:
    """Median time of one call, after two that warm up."""
    times = []
    for i in range(repeats + 2):
        began = time.perf_counter()
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times += [time.perf_counter() - began] if i > 1 else []
    return statistics.median(times)


def matrix_rate(dtype: torch.dtype, n: int) -> float:
    """Operations a second of an n x n matrix product."""
    a, b = torch.randn(2, n, n, device=device(), dtype=dtype)
    return 2 * n**3 / seconds(lambda: a @ b)


def convolution_rate(dtype: torch.dtype, batch: int, channels: int = 64, side: int = 32) -> float:
    """Operations a second of a 3x3 convolution, channels last, forward alone."""
    x = torch.randn(batch, channels, side, side, device=device(), dtype=dtype).contiguous(memory_format=torch.channels_last)
    w = torch.randn(channels, channels, 3, 3, device=device(), dtype=dtype).contiguous(memory_format=torch.channels_last)
    return 2 * 9 * channels**2 * batch * side**2 / seconds(lambda: F.conv2d(x, w, padding=1))


class Operations(TorchDispatchMode):
    """Counts as PyTorch's FlopCounterMode does, which itself hooks modules in a way that double backward does not survive."""

    total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket in flop_registry:
            self.total += flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=out)
        return out


def step_rate(run: Run) -> tuple[float, float]:
    """(operations a step, seconds a step), both averaged over one lazy period."""
    loaded = api.dataset(run)
    model = api.build(run, loaded)
    period = model.penalties["lazy"]
    steps = loop.train(run, model, loaded)
    for _ in range(period):
        state: State = next(steps).state
    with Operations() as counter:
        for _ in range(period):
            next(steps)
    taken = seconds(lambda: [next(steps) for _ in range(period)], repeats=5)
    assert state.step > 0
    return counter.total / period, taken / period


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def measure(run: Run) -> dict[str, float]:
    """The arithmetic rate of a step of this run, and the machine's, in the run's precision."""
    dtype = torch.bfloat16 if run.precision == "bf16" else torch.float32
    operations, taken = step_rate(run)
    rates = {"matrix product": matrix_rate(dtype, 8192 if device() == "cuda" else 2048), "convolution": convolution_rate(dtype, run.batch)}
    achieved = operations / taken
    return {
        "operations a step": operations,
        "seconds a step": round(taken, 5),
        "achieved, Gop/s": round(achieved / 1e9, 1),
        **{f"{k}, Gop/s": round(v / 1e9, 1) for k, v in rates.items()},
        **{f"achieved over {k}": round(achieved / v, 3) for k, v in rates.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    run = bench_run(given.data, given.batch)
    precisions = ["bf16", "32"] if loop.fast_bf16() else ["32"]
    publish("limits", run, {p: measure(replace(run, precision=p)) for p in precisions}, given.out)


if __name__ == "__main__":
    main()
