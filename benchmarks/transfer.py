"""What translation and style transfer cost, beside the least their arithmetic takes at the machine's own rate, and in memory.

    train        a step of both players of `cyclegan-scenes` on a fixed batch of 2, with and without the identity term
    translate    `condgen translate` of a photograph, from its file to the PNG: 1 megapixel in one piece, 4 in tiles
    evaluate     one evaluation of style transfer's energy and its gradient: 224x168 px; 1 megapixel in one piece, and in tiles
    descend      what L-BFGS itself takes for a step at 1 megapixel, beside the memory it must read
    fast         AdaIN and WCT at 1 megapixel
    video        a frame at 160x104 px: flow both ways, its trust, warping, 80 evaluations
    photo        deep photo at 192 and 512 px: the matting Laplacian, a product with it beside the memory it must read, the filters

Least seconds are the operations that a picture seen in one piece needs (a multiply and an add are two), over the rate of one 3x3
convolution of 64 channels at 32 px in the same process, forwards, in that precision. `done over least` is what margins of tiles and second
looks add. `by operation` are shares of the time, of what PyTorch ran; what is left is elsewhere.

Seconds are the processor's where there is one thread: other work on the machine changes them least. With more threads they are those of
the wall, which want an idle machine. With one thread each part runs in a process of its own, whose most held memory is counted (MiB)
beyond what it held before; with more, all parts share one. Ratios hold for this machine alone.

    python benchmarks/transfer.py [--parts train fast] [--threads 1 2] [--net distilled] [--out benchmarks/results/transfer.json]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from condgen import api, pretrained
from condgen.backbones import distilled_pairs, feature_net
from condgen.conditions import Label
from condgen.data.photos import photograph
from condgen.data.store import Batch, to_bytes, to_float
from condgen.data.video import opencv
from condgen.editing.coarse import resized
from condgen.editing.descent import Descent
from condgen.editing.feedforward import LEVELS, stylize_fast
from condgen.editing.flow import FLOWS, reliability, warp
from condgen.editing.local_affine import smooth_local_affine, with_grain
from condgen.editing.matting import laplacian, photorealism
from condgen.editing.tiles import Tiled
from condgen.editing.transfer import RECIPES, Transfer
from condgen.editing.video import temporal_loss
from condgen.edits.translate import translate
from condgen.errors import BadInput
from condgen.models.cyclegan import CycleGAN
from condgen.training.loop import fast_bf16
from condgen.training.processes import make_fabric
from condgen.training.state import begin
from condgen.training.turns import take_turns
from limits import Operations
from measuring import Row, bandwidth, by_itself, by_operation, count, measured, seconds, share
from style import MIB, held, saved_for_backward
from train_step import tell

PRESET = "cyclegan-scenes"
DOMAINS = {"domain": Label(("plain", "striped"))}
MEGAPIXEL, FOUR = (832, 1248), (1664, 2496)
SMALL, FRAME = (168, 224), (104, 160)
PHOTOS = {192: (144, 192), 512: (384, 512)}
STEPS_A_FRAME = 80


def picture(size: tuple[int, int], name: str = "china") -> Tensor:
    """A photograph (1, 3, h, w) in [-1, 1]."""
    return resized(to_float(photograph(name)[None]), size).clamp(-1, 1)


# --- training -------------------------------------------------------------------------------------------------------------


class Training:
    """The preset's nets and optimisers with a fixed batch; `style.saved_for_backward` reads it too."""

    def __init__(self, precision: str, **options: float):
        torch.manual_seed(0)
        self.run = replace(api.preset(PRESET), precision=precision)
        side = self.run.size or 64
        self.fabric = make_fabric(precision)
        self.model = self.fabric.to_device(CycleGAN((3, side, side), DOMAINS, **(self.run.options | options)))
        self.state = begin(self.model, self.run)
        x = torch.cat([picture((side, side), name) for name in ("china", "flower")])
        self.batch = Batch(x, {"domain": torch.tensor([0, 1])})

    def step(self) -> None:
        take_turns(self.run, self.state, self.batch, self.fabric)
        self.model.after_step(lambda rows: rows)
        self.state.step += 1


def train(precision: str) -> Row:
    """A step, and its memory over the least: weights, gradients, two moments, and what is kept for the way back."""
    dtype, before = torch.bfloat16 if precision == "bf16" else torch.float32, held()
    bench = Training(precision)
    bench.step()
    bench.step()
    peak = held(most=True) - before
    kept, weights = saved_for_backward(bench) / MIB, sum(p.nbytes for p in bench.model.parameters()) / MIB  # type: ignore[arg-type]
    found = {"with identity": measured(bench.step, 5, dtype=dtype)}
    found["without identity"] = measured(Training(precision, identity=0.0).step, 5, dtype=dtype)
    for row in found.values():
        row |= {"pictures a second": round(len(bench.batch.x) / row["seconds"], 1)}
        row.pop("most held, MiB", None)  # that of the process is told below
    if not by_itself():
        return found
    pools = sum(b.nbytes for b in bench.model.buffers()) / MIB
    least = {
        "weights, gradients, moments": round(4 * weights, 1),
        "kept for the way back": round(kept, 1),
        "pools of fakes": round(pools, 1),
    }
    memory = {"least, MiB": least, "most held, MiB": round(peak, 1), "most over least": share(peak, sum(least.values()))}
    return found | {"memory": memory}


# --- translating ----------------------------------------------------------------------------------------------------------


def translated(size: tuple[int, int]) -> Row:
    """From a file to a PNG, by an untrained net of the preset's size: weights do not change the time."""
    from PIL import Image

    side, options = api.preset(PRESET).size or 64, api.preset(PRESET).options
    model = CycleGAN((3, side, side), DOMAINS, **options)
    least = count(model.G, size, lambda net, x: torch.no_grad()(net)(x))
    with tempfile.TemporaryDirectory() as folder:
        run, file = str(Path(folder) / "run"), Path(folder) / "photo.webp"
        pretrained.save(model, run, {})
        del model
        Image.fromarray(to_bytes(picture(size))[0]).save(file, quality=90)
        number = iter(range(1 << 30))

        def work() -> None:
            translate(run, [file], to="striped", out=Path(folder) / f"{next(number)}.png")

        found = measured(work, least=least, look=size == MEGAPIXEL)
        found["PNG alone, seconds"] = round(seconds(partial(Image.open(Path(folder) / "0.png").copy().save, Path(folder) / "a.png"), 1), 3)
    return found | {"px": list(size)}


# --- style transfer -------------------------------------------------------------------------------------------------------


def evaluation(transfer: Transfer, x: Tensor) -> Callable[[], None]:
    """The energy and its gradient."""

    def work() -> None:
        moved = x.detach().requires_grad_()
        torch.stack([t.reshape(()) for t in transfer.energy(moved).values()]).sum().backward()

    return work


def needed(net: nn.Module, size: tuple[int, int]) -> float:
    """Operations of an evaluation in one piece, without those of content and style, which are seen once."""

    def run(meta: nn.Module, x: Tensor) -> None:
        transfer = Transfer(meta, RECIPES["relative"], x, [x])
        with Operations() as counter:
            evaluation(transfer, x)()
        own.append(counter.total)

    own: list[float] = []
    count(net, size, run)
    return own[0]


def evaluated(size: tuple[int, int], tiled: bool, repeats: int, net: str) -> Row:
    eyes, p = feature_net(net), picture(size)
    least = needed(eyes, size)
    transfer = Transfer(Tiled(eyes) if tiled else eyes, RECIPES["relative"], p, [picture(size, "flower")])
    return measured(evaluation(transfer, transfer.start("noise")), repeats, least) | {"px": list(size)}


def descended() -> Row:
    """A step of L-BFGS that remembers all it may, on an energy that costs nothing to speak of."""
    x, history = picture(MEGAPIXEL), RECIPES["relative"].history
    weights = torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) + 0.1
    descent = Descent(x, lambda x: {"energy": (weights * x.square()).sum()}, history + 20, history=history)
    before = held()
    for _ in range(history + 2):
        descent.advance()
    peak, taken = held(most=True) - before, seconds(descent.advance, 5)
    # Twice over the pairs: a product (two pictures read), a sum (two read, one written).
    moved = 2 * history * 5 * x.nbytes
    least = moved / bandwidth(2 * history * x.nbytes)
    found: Row = {
        "seconds": round(taken, 5),
        "least seconds to move its memory": round(least, 5),
        "of the machine's rate": share(least, taken),
    }
    found |= {"GB moved": round(moved / 1e9, 3), "pairs, MiB": round(2 * history * x.nbytes / MIB)}
    return found | ({"most held, MiB": round(peak), "by operation": by_operation(descent.advance)} if by_itself() else {})


def quick(method: str) -> Row:
    """One pass over all levels; least: content and style are encoded once, the content is decoded once."""
    content, style = picture(MEGAPIXEL), picture(MEGAPIXEL, "flower")
    pairs = distilled_pairs(LEVELS[method])

    def once(pair: nn.Module, x: Tensor) -> None:
        pair.encode(x)
        pair.decode(pair.encode(x))

    least = sum(count(pair, MEGAPIXEL, once) for pair in pairs.values())
    return measured(partial(stylize_fast, content, style, method=method, pairs=pairs), least=least) | {"px": list(MEGAPIXEL)}


# --- video ----------------------------------------------------------------------------------------------------------------


def frame(net: str) -> Row:
    """A frame by its parts: two views of one photograph, some px apart."""
    wide = picture((FRAME[0] + 4, FRAME[1] + 6))
    now, before = (wide[..., i : FRAME[0] + i, j : FRAME[1] + j].contiguous() for i, j in ((4, 6), (0, 0)))
    opencv().setNumThreads(torch.get_num_threads())
    back, forward = FLOWS["dis"](now, before), FLOWS["dis"](before, now)
    c = reliability(back, forward, soft=True)
    transfer = Transfer(feature_net(net), RECIPES["relative"], now, [picture(FRAME, "flower")])
    tie = (warp(before, back), c)

    def energy(x: Tensor) -> dict[str, Tensor]:
        return transfer.energy(x) | {"temporal": 10.0 * temporal_loss(x, [tie])}

    def descend(steps: int = STEPS_A_FRAME) -> None:
        list(Descent(tie[0], energy, steps))

    found: Row = {"px": list(FRAME), "descent of 80": measured(descend, look=False)}
    if by_itself():
        found["descent of 80"]["by operation"] = by_operation(partial(descend, 30))
    parts: dict[str, Callable[[], object]] = {
        "flow, both ways": lambda: (FLOWS["dis"](now, before), FLOWS["dis"](before, now)),
        "trust": lambda: reliability(back, forward, soft=True),
        "warping": lambda: warp(before, back),
        "temporal term, 80 times both ways": lambda: [temporal_term(now, tie) for _ in range(STEPS_A_FRAME)],
    }
    found |= {f"{name}, seconds": round(seconds(part, 3), 5) for name, part in parts.items()}
    beside = sum(found[f"{name}, seconds"] for name in ("flow, both ways", "trust", "warping"))
    return found | {"frames a minute": round(60 / (found["descent of 80"]["seconds"] + beside), 1)}


def temporal_term(x: Tensor, tie: tuple[Tensor, Tensor]) -> None:
    temporal_loss(x.detach().requires_grad_(), [tie]).backward()


# --- deep photo -----------------------------------------------------------------------------------------------------------


def photo(side: int, net: str) -> Row:
    """The Laplacian is made once a photograph, its product once an evaluation, the filters once at the end."""
    size = PHOTOS[side]
    p, drawn, before = picture(size), picture(size, "flower"), held()
    m = laplacian(p)
    made = {"most held, MiB": round(held(most=True) - before)} if by_itself() else {}
    made["kept, MiB"] = round((m.data.nbytes + m.indices.nbytes + m.indptr.nbytes) / MIB)
    taken = seconds(lambda: laplacian(p), 1 if side > 256 else 3)
    found: Row = {
        "px": list(size),
        "Laplacian": {"seconds": round(taken, 4), "Mnnz": round(m.nnz / 1e6, 3), "Mnnz/s": round(m.nnz / taken / 1e6, 2)},
    }
    found["Laplacian"] |= made
    found["product"] = product(m, drawn)
    transfer = Transfer(feature_net(net), RECIPES["relative"], p, [drawn])
    whole = evaluation(transfer, drawn)
    whole()
    term = seconds(lambda: photorealism(drawn.detach().requires_grad_(), m).backward(), 5)
    rest = seconds(whole, 3)
    found["term in an evaluation"] = {"seconds": round(term, 5), "of the evaluation": share(term, term + rest)}
    for name, work in (("local affine filter", smooth_local_affine), ("grain", with_grain)):
        found[name] = {"seconds": round(seconds(partial(work, drawn, p), 1), 4)}
    found["local affine filter"] |= filter_bound(size, found["local affine filter"]["seconds"])
    if by_itself():
        found["local affine filter"]["by operation"] = by_operation(partial(smooth_local_affine, drawn, p))
    return found


def product(m: Any, x: Tensor) -> dict[str, float]:
    """M v for three channels, beside reading M and v and writing M v once."""
    v = x[0].flatten(1).double().numpy().T.copy()
    m @ v
    taken = seconds(lambda: m @ v, 15)
    nbytes = m.data.nbytes + m.indices.nbytes + m.indptr.nbytes + 2 * v.nbytes
    least = nbytes / bandwidth(nbytes)
    return {
        "seconds": round(taken, 6),
        "MB": round(nbytes / 1e6, 2),
        "least seconds": round(least, 6),
        "of the machine's rate": share(least, taken),
    }


def filter_bound(size: tuple[int, int], taken: float, radius: int = 15) -> dict[str, float]:
    """One displacement at a time: 12 numbers of a map and a weight are read, and their sums read and written, in float32."""
    pixels = size[0] * size[1]
    moved = (2 * radius + 1) ** 2 * pixels * 13 * 3 * 4
    least = moved / bandwidth(pixels * 13 * 2 * 4)
    return {"GB moved": round(moved / 1e9, 2), "least seconds": round(least, 4), "of the machine's rate": share(least, taken)}


# --- all of it ------------------------------------------------------------------------------------------------------------


def parts(net: str) -> dict[str, Callable[[], Row]]:
    precisions = ("bf16", "32") if fast_bf16() else ("32",)
    found: dict[str, Callable[[], Row]] = {f"train {p}": partial(train, p) for p in precisions}
    found |= {"translate 1 Mpx": partial(translated, MEGAPIXEL), "translate 4 Mpx": partial(translated, FOUR)}
    found |= {
        "evaluate 224x168": partial(evaluated, SMALL, False, 9, net),
        "evaluate 1 Mpx": partial(evaluated, MEGAPIXEL, False, 1, net),
        "evaluate 1 Mpx, tiles": partial(evaluated, MEGAPIXEL, True, 0, net),
        "descend 1 Mpx": descended,
    }
    found |= {f"fast {method} 1 Mpx": partial(quick, method) for method in LEVELS}
    return found | {"video 160x104": partial(frame, net)} | {f"photo {side}": partial(photo, side, net) for side in PHOTOS}


def elsewhere(names: list[str], threads: int, net: str) -> dict[str, Row]:
    """These parts in a process of their own, with so many threads in all its libraries."""
    words = [sys.executable, __file__, "--here", *names, "--threads", str(threads), "--net", net]
    env = os.environ | {name: str(threads) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    done = subprocess.run(words, env=env, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{', '.join(names)}: {done.stderr.strip()}")
    print(f"{threads} threads: {done.stdout.strip()}", file=sys.stderr, flush=True)
    return json.loads(done.stdout)


def here(part: str, net: str) -> Row:
    """A part in this process; where it lacks something, such as OpenCV or the net's weights, what it lacks."""
    try:
        return parts(net)[part]()
    except BadInput as error:
        return {"not measured": str(error)}


def by_part(names: list[str], threads: int, net: str) -> dict[str, Row]:
    if threads > 1:
        return elsewhere(names, threads, net)
    return {part: row for name in names for part, row in elsewhere([name], threads, net).items()}


def chosen(names: Iterable[str], wanted: list[str]) -> list[str]:
    return [name for name in names if not wanted or any(name.startswith(w) for w in wanted)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="*", default=[], help="only those whose names begin so, such as train, 'photo 192'")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, os.cpu_count() or 1])
    parser.add_argument("--net", default="distilled")
    parser.add_argument("--here", nargs="+", help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.here:
        torch.set_num_threads(given.threads[0])
        print(json.dumps({part: here(part, given.net) for part in given.here}))
        return
    began, load = time.perf_counter(), os.getloadavg()[0]
    names = chosen(parts(given.net), given.parts)
    found = {str(n): by_part(names, n, given.net) for n in dict.fromkeys(given.threads)}
    result = {"benchmark": "transfer", "net": given.net, "by_threads": found, "load before": round(load, 2)}
    tell(result | {"seconds": round(time.perf_counter() - began, 1)}, given.out)


if __name__ == "__main__":
    main()
