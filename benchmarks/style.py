"""What a StyleGAN costs, beside what the machine's own convolutions reach and beside the least that a step must keep in memory.

    machine     3x3 convolutions of the model's own channels and sides, forwards and backwards, and nothing else: its rate is the ceiling
    step        one step of both players, without R1 and with it, and what a lazy R1 makes of the two
    sampling    latents to pictures, without gradients
    modulated   StyleGAN2's convolution by scaled inputs (one convolution for the batch) and by a kernel for each sample (as published),
                forwards and backwards, at every resolution
    r1          its gradient, twice backwards (as the library has it), or forwards and backwards: |g|^2 has twice the gradient of the
                logit's derivative along g, held fixed. A difference of logits at x +- e g would be cheaper, and is none: behind leaky
                rectifiers it counts the kinks between the two points, which the gradient leaves out. `plain` is D's own pass
    memory      of a step in a process of its own: the most it held beyond what it began with, over weights, gradients and two moments,
                and what autograd keeps for the way back

Arithmetic is counted by PyTorch's flop registry; a multiply and an add are two. Ratios hold for this machine alone.

    python benchmarks/style.py [--sides 32 64 256] [--repeats 5] [--precision auto|32] [--out benchmarks/results/style.json]
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from condgen.data.store import Batch
from condgen.model import Optimizer, Run
from condgen.models.stylegan import StyleGAN
from condgen.networks.equalised import EqualConv
from condgen.networks.style import grouped, modulated, stages
from condgen.objectives.penalties import squared_gradient
from condgen.training.loop import fast_bf16
from condgen.training.processes import make_fabric
from condgen.training.state import begin
from condgen.training.turns import take_turns
from limits import Operations, device, seconds
from train_step import tell

SIZES: dict[int, dict[str, int]] = {
    32: {"width": 32, "widest": 128, "batch": 16},
    64: {"width": 32, "widest": 128, "batch": 16},
    256: {"width": 16, "widest": 128, "batch": 4},
}
"""`stylegan-lfw32`'s nets, and what two cores can still turn over at the larger sides."""
LAZY = (1, 8, 16)
MIB = 2**20


class Bench:
    """One model with its optimisers and a fixed batch; R1 falls on even steps."""

    def __init__(self, side: int, precision: str):
        torch.manual_seed(0)
        size = SIZES[side]
        self.channels, self.batch_size = {k: size[k] for k in ("width", "widest")}, size["batch"]
        self.fabric = make_fabric(precision)
        self.model = self.fabric.to_device(StyleGAN((3, side, side), {}, **self.channels, r1=1.0, lazy=2))
        self.model.to(memory_format=torch.channels_last)
        self.run = Run("stylegan.StyleGAN", "none", optimizers={"*": Optimizer(lr=1e-3, betas=(0.0, 0.99))}, steps=10**9)
        self.state = begin(self.model, self.run)
        x = 2 * torch.rand(self.batch_size, 3, side, side, device=device()) - 1
        self.batch = Batch(x.contiguous(memory_format=torch.channels_last), {})

    def step(self, r1: bool) -> None:
        self.state.step = 0 if r1 else 1
        take_turns(self.run, self.state, self.batch, self.fabric)

    def logits(self, x: Tensor) -> Tensor:
        with self.fabric.autocast():
            return self.model.D(x, {})[:, 0]


def operations(work: Callable[[], object]) -> float:
    work()
    with Operations() as counter:
        work()
    return counter.total


def ceiling(bench: Bench, side: int, dtype: torch.dtype, repeats: int) -> dict[str, float]:
    """Operations a second of the plain convolutions, all resolutions in turn: forwards, and forwards and backwards."""
    sides, channels = stages((3, side, side), **bench.channels)
    pairs = []
    for (h, w), n in zip(sides, channels, strict=True):
        x = torch.randn(bench.batch_size, n, h, w, device=device(), dtype=dtype).contiguous(memory_format=torch.channels_last)
        kernel = torch.randn(n, n, 3, 3, device=device(), dtype=dtype).contiguous(memory_format=torch.channels_last)
        pairs.append((x.requires_grad_(), kernel.requires_grad_()))

    def forwards() -> None:
        with torch.no_grad():
            for x, kernel in pairs:
                F.conv2d(x, kernel, padding=1)

    def both() -> None:
        for x, kernel in pairs:
            y = F.conv2d(x, kernel, padding=1)
            torch.autograd.grad(y, (x, kernel), torch.ones_like(y))

    return {name: operations(work) / seconds(work, repeats) for name, work in (("forwards", forwards), ("both ways", both))}


def steps(bench: Bench, ceiling_rate: float, repeats: int) -> dict[str, Any]:
    """A step with R1 and without, over what the convolutions alone would take."""
    found: dict[str, Any] = {}
    for name, r1 in (("without r1", False), ("with r1", True)):
        step = partial(bench.step, r1)
        found[name] = told(operations(step), seconds(step, repeats), ceiling_rate)
    plain, due = (found[name]["seconds"] for name in ("without r1", "with r1"))
    lazy = {k: ((k - 1) * plain + due) / k for k in LAZY}
    found["seconds a step, r1 every k-th"] = {str(k): round(v, 5) for k, v in lazy.items()}
    found["r1 at every step over none"] = round(due / plain, 3)
    found["pictures a second, r1 every k-th"] = {str(k): round(bench.batch_size / v, 1) for k, v in lazy.items()}
    return found


def told(count: float, taken: float, rate: float) -> dict[str, float]:
    achieved = count / taken
    return {
        "seconds": round(taken, 5),
        "Gop": round(count / 1e9, 3),
        "Gop/s": round(achieved / 1e9, 2),
        "of the machine's convolutions": round(achieved / rate, 3),
    }


def sampling(bench: Bench, ceiling_rate: float, repeats: int) -> dict[str, float]:
    n = bench.batch_size

    def draw() -> None:
        with bench.fabric.autocast():
            bench.model.sample(n=n, seed=0)

    found = told(operations(draw), seconds(draw, repeats), ceiling_rate)
    return found | {"pictures a second": round(n / found["seconds"], 1)}


def modulation(bench: Bench, side: int, dtype: torch.dtype, repeats: int) -> dict[str, dict[str, float]]:
    """By the side of the pictures that are convolved."""
    sides, channels = stages((3, side, side), **bench.channels)
    found = {}
    for (h, w), n in zip(sides, channels, strict=True):
        conv = EqualConv(n, n).to(device(), memory_format=torch.channels_last)
        x = torch.randn(bench.batch_size, n, h, w, device=device(), dtype=dtype).contiguous(memory_format=torch.channels_last)
        x.requires_grad_()
        scale = torch.rand(bench.batch_size, n, device=device(), requires_grad=True)
        taken = {f.__name__: seconds(partial(both_ways, f, conv, x, scale), repeats) for f in (modulated, grouped)}
        found[str(h)] = {f"{k}, ms": round(1e3 * v, 3) for k, v in taken.items()}
        found[str(h)] |= {"grouped over modulated": round(taken["grouped"] / taken["modulated"], 3)}
    return found


def both_ways(form: Callable[..., Tensor], conv: EqualConv, x: Tensor, scale: Tensor) -> None:
    with torch.autocast(x.device.type, x.dtype, enabled=x.dtype != torch.float32):
        y = form(x, conv, scale)
    torch.autograd.grad(y, (x, conv.weight, scale), torch.ones_like(y))


# --- the ways to R1's gradient ------------------------------------------------------------------------------------------------


def twice_backwards(bench: Bench) -> list[Tensor]:
    x = bench.batch.x.detach().requires_grad_()
    return gradients(bench, squared_gradient(bench.logits(x), x).sum())


def forwards_and_backwards(bench: Bench) -> list[Tensor]:
    """d|g|^2 is 2 d(logit along g), g held: the derivative along g in forward mode."""
    x = bench.batch.x.detach()
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, slope(bench))
        along = torch.autograd.forward_ad.unpack_dual(bench.logits(dual)).tangent
    return gradients(bench, 2 * along.sum())


def slope(bench: Bench) -> Tensor:
    """The logits' gradient in the pictures, held fixed."""
    x = bench.batch.x.detach().requires_grad_()
    return torch.autograd.grad(bench.logits(x).sum(), x)[0]


def plainly(bench: Bench) -> list[Tensor]:
    """D's own forward and backward pass on the pictures."""
    return gradients(bench, bench.logits(bench.batch.x).sum())


def gradients(bench: Bench, loss: Tensor) -> list[Tensor]:
    """In D's weights; zero where there is none."""
    own = list(bench.model.D.parameters())
    found = torch.autograd.grad(loss, own, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(own, found, strict=True)]


def penalty(bench: Bench, repeats: int) -> dict[str, dict[str, float]]:
    """Time of each way over D's own pass, and how far its gradient is from the exact one."""
    exact = torch.cat([g.flatten().float() for g in twice_backwards(bench)])
    own, found = seconds(partial(plainly, bench), repeats), {"plain": {"over d's pass": 1.0}}
    for way in (twice_backwards, forwards_and_backwards):
        got = torch.cat([g.flatten().float() for g in way(bench)])
        taken = seconds(partial(way, bench), repeats)
        error = float((got - exact).norm() / exact.norm())
        found[way.__name__] = {"seconds": round(taken, 5), "over d's pass": round(taken / own, 3), "relative error": float(f"{error:.2g}")}
    found["plain"]["seconds"] = round(own, 5)
    return found


# --- memory -------------------------------------------------------------------------------------------------------------------


def memory(side: int, precision: str) -> dict[str, float]:
    """What a step holds at most, MiB, and the least it must; for a process of its own, which has run nothing else."""
    before = held()
    bench = Bench(side, precision)
    for r1 in (True, False, True):
        bench.step(r1)
    peak = held(most=True) - before
    weights = sum(p.nbytes for p in bench.model.parameters()) / MIB
    kept = saved_for_backward(bench) / MIB
    bound = 4 * weights + kept  # weights, gradients, two moments
    return {
        "weights, MiB": round(weights, 2),
        "kept for the way back, MiB": round(kept, 1),
        "least, MiB": round(bound, 1),
        "most held, MiB": round(peak, 1),
        "most over least": round(peak / bound, 3),
    }


def held(most: bool = False) -> float:
    """MiB of this process, now or at most so far; of tensors alone on an accelerator."""
    if torch.cuda.is_available():
        return (torch.cuda.max_memory_allocated() if most else torch.cuda.memory_allocated()) / MIB
    if most:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / MIB


def saved_for_backward(bench: Bench) -> float:
    """Bytes that autograd keeps when D is about to descend with R1, each storage once, without the weights themselves."""
    own, seen = {p.untyped_storage().data_ptr() for p in bench.model.parameters()}, {}

    def keep(t: Tensor) -> Tensor:
        store = t.untyped_storage()
        if store.data_ptr() not in own:
            seen[store.data_ptr()] = store.nbytes()
        return t

    turns = bench.model.turns(bench.batch, 0)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t), bench.fabric.autocast():
        terms = next(turns)
    assert terms
    return float(sum(seen.values()))


def in_a_process_of_its_own(side: int, precision: str) -> dict[str, float]:
    words = [sys.executable, __file__, "--memory", str(side), "--precision", precision]
    return json.loads(subprocess.run(words, check=True, capture_output=True, text=True).stdout)


def measure(side: int, precision: str, repeats: int) -> dict[str, Any]:
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    bench = Bench(side, precision)
    rates = ceiling(bench, side, dtype, repeats)
    return {
        "nets": bench.channels | {"batch": bench.batch_size},
        "machine's convolutions, Gop/s": {k: round(v / 1e9, 2) for k, v in rates.items()},
        "step": steps(bench, rates["both ways"], repeats),
        "sampling": sampling(bench, rates["forwards"], repeats),
        "modulated": modulation(bench, side, dtype, repeats),
        "r1": penalty(bench, repeats),
        "memory": in_a_process_of_its_own(side, precision),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--repeats", type=int, default=5, help="of which the median counts, after two that warm up; one at 256 px")
    parser.add_argument("--precision", default="auto", choices=["auto", "32", "bf16"])
    parser.add_argument("--memory", type=int, choices=list(SIZES), help="that part alone, in this process")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    precision = ("bf16" if fast_bf16() else "32") if given.precision == "auto" else given.precision
    if given.memory:
        print(json.dumps(memory(given.memory, precision)))
        return
    found = {str(side): measure(side, precision, 1 if side >= 256 else given.repeats) for side in given.sides}
    tell({"benchmark": "style", "precision": precision, "by_side": found}, given.out)


if __name__ == "__main__":
    main()
