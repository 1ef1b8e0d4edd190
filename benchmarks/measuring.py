"""How `transfer` measures: time, arithmetic beside the machine's rate, memory, and what took the time."""

import copy
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from limits import Operations
from style import held

Row = dict[str, Any]
TOLD = 0.03
"""Share of the time from which an operation is named."""


def clock() -> float:
    return time.process_time() if by_itself() else time.perf_counter()


def seconds(work: Callable[[], object], repeats: int) -> float:
    """Median time of one call; the caller has warmed up."""
    times = []
    for _ in range(repeats):
        began = clock()
        work()
        times.append(clock() - began)
    return statistics.median(times)


def rate(dtype: torch.dtype = torch.float32) -> float:
    """Operations a second of a 3x3 convolution of 64 channels at 32 px, batch 32, channels last, forwards: as `limits`, by this clock."""
    like: dict[str, Any] = {"memory_format": torch.channels_last}
    x, w = torch.randn(32, 64, 32, 32, dtype=dtype).contiguous(**like), torch.randn(64, 64, 3, 3, dtype=dtype).contiguous(**like)
    work = partial(F.conv2d, x, w, padding=1)
    work()
    return 2 * 9 * 64**2 * 32 * 32**2 / seconds(work, 15)


def measured(
    work: Callable[[], object], repeats: int = 0, least: float | None = None, dtype: torch.dtype = torch.float32, look: bool = True
) -> Row:
    """Time and arithmetic of one call; with one thread, memory and what took the time.

    Args:
        work: is called once more to be looked at, with one thread.
        repeats: calls after a first one of which the median counts; 0 for the first call itself, as a person meets it.
        least: operations that it must do; those that it does by default.
        dtype: whose rate they are set against.
        look: whether it is looked at.
    """
    before, began = held(), clock()
    with Operations() as counter:
        work()
    first, peak = clock() - began, held(most=True) - before
    taken, machines = seconds(work, repeats) if repeats else first, rate(dtype)
    least = counter.total if least is None else least
    found = {
        "seconds": round(taken, 5),
        "least seconds": round(least / machines, 5),
        "of the machine's rate": share(least / machines, taken),
    }
    found |= {"Gop": round(least / 1e9, 3), "done over least": share(counter.total, least), "machine, Gop/s": round(machines / 1e9, 1)}
    if not by_itself():
        return found
    return found | {"most held, MiB": round(peak)} | ({"by operation": by_operation(work)} if look else {})


def by_itself() -> bool:
    """Whether this part has a process of its own, so that its memory can be told: with one thread."""
    return torch.get_num_threads() == 1


def share(part: float, whole: float) -> float:
    return round(part / whole, 3) if whole else 0.0


def by_operation(work: Callable[[], object]) -> dict[str, float]:
    """Share of the time that PyTorch's operations took by themselves, the most first."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        began = time.perf_counter()
        work()
        taken = time.perf_counter() - began
    own = {e.key: e.self_cpu_time_total / 1e6 / taken for e in profile.key_averages()}
    return {name: round(v, 3) for name, v in sorted(own.items(), key=lambda kv: -kv[1]) if v >= TOLD}


def bandwidth(nbytes: float) -> float:
    """Bytes a second that a sum reads, of an array of that size: what fits into the caches is read from there."""
    x = torch.ones(max(1, round(nbytes / 8)), dtype=torch.float64)
    x.sum()
    return x.nbytes / seconds(x.sum, 9)


def count(net: nn.Module, size: tuple[int, int], run: Callable[[nn.Module, Tensor], object]) -> float:
    """Operations of a net on a picture in one piece: of shapes alone, no number is computed."""
    with Operations() as counter:
        run(copy.deepcopy(net).to("meta"), torch.empty(1, 3, *size, device="meta"))
    return counter.total
