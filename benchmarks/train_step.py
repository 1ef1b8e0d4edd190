"""What the training loop costs and what it gains, as ratios taken in one run.

    ours    condgen.train: memory-mapped store, channels last, bf16 where the machine has it, only the needed gradients; with its
            moving average, its checks and its measurements every 50 steps, without checkpoints and sample grids
    plain   a loop as one writes it by hand: fp32, eager, a DataLoader over PNG files, the same nets and losses, backward() on everything
    bare    our own nets, turns and precision stepped by hand on one fixed batch: no data, no averages, no records

They take turns in short blocks, in another order each time, so that a change of the machine's speed meets all. A block is a whole
number of the penalty's lazy periods; a ratio is taken in each round of blocks, and the median of the rounds counts. (`plain` runs at a
learning rate of 1e-3 with PyTorch's default Adam; neither matters for its time.)

    python benchmarks/train_step.py [--blocks 6] [--steps 8] [--precision both|auto|32] [--out benchmarks/results/train_step.json]
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from PIL import Image
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from condgen import api
from condgen.data.store import Batch
from condgen.evaluation.protocols import machine, versions
from condgen.model import Model, Run
from condgen.training import loop
from condgen.training.state import begin

PICTURES = 2048


class PNGs(TorchDataset):
    """The pictures as files, decoded at each access."""

    def __init__(self, folder: Path, labels: torch.Tensor):
        self.files, self.labels = sorted(folder.glob("*.png")), labels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        import numpy as np

        pixels = torch.from_numpy(np.array(Image.open(self.files[i]))).float()
        return pixels[None] / 127.5 - 1, self.labels[i]


def ours(run: Run) -> Iterator[float]:
    """Seconds of each step of the loop, everything included."""
    loaded = api.dataset(run)
    steps = loop.train(run, api.build(run, loaded), loaded)
    yield from timed(lambda: next(steps))


def bare(run: Run) -> Iterator[float]:
    loaded = api.dataset(run)
    model = api.build(run, loaded)
    model.to(memory_format=torch.channels_last)
    state = begin(model, run)
    fabric = Fabric(accelerator="auto", devices=1, precision="bf16-mixed" if run.precision == "bf16" else "32-true")
    fabric.to_device(model)
    batch = loaded.batch(torch.arange(run.batch))
    batch = Batch(fabric.to_device(batch.x), {k: fabric.to_device(v) for k, v in batch.c.items()})
    count = iter(range(1 << 60))

    def step() -> None:
        turns = model.turns(batch, next(count))
        while True:
            with fabric.autocast():
                turn = next(turns, None)
            if turn is None:
                return
            for player, terms in turn.items():
                state.optimizers[player].zero_grad()
                sum(v.mean() for v in terms.values()).backward(inputs=state.own[player])
                state.optimizers[player].step()

    yield from timed(step)


def plain(run: Run, folder: Path, labels: torch.Tensor, workers: int) -> Iterator[float]:
    """The loop of many a script; it draws its own latents and moves its own nets."""
    model = api.build(run, api.dataset(run))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    G, D = model.G, model.D
    optim_g, optim_d = (torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.0, 0.99)) for net in (G, D))
    loader = endless(
        DataLoader(PNGs(folder, labels), run.batch, shuffle=True, num_workers=workers, drop_last=True, persistent_workers=workers > 0)
    )
    r1, lazy = (run.options.get(k, default) for k, default in (("r1", 0.2), ("lazy", model.penalties["lazy"])))
    count = iter(range(1 << 60))

    def step() -> None:
        x, y = (t.to(device) for t in next(loader))
        c = {"digit": y}
        due = next(count) % lazy == 0
        x.requires_grad_(due)
        fake = G(torch.randn(len(x), model.z_dim, device=device), c)
        real_logit = D(x, c)[:, 0]
        loss_d = F.softplus(-real_logit).mean() + F.softplus(D(fake.detach(), c)[:, 0]).mean()
        if due:
            (g,) = torch.autograd.grad(real_logit.sum(), x, create_graph=True)
            loss_d = loss_d + lazy * r1 / 2 * g.square().flatten(1).sum(1).mean()
        optim_d.zero_grad()
        loss_d.backward()
        optim_d.step()
        loss_g = F.softplus(-D(fake, c)[:, 0]).mean()
        optim_g.zero_grad()
        loss_g.backward()
        optim_g.step()

    yield from timed(step)


def endless(loader: DataLoader) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    while True:
        yield from loader


def timed(step: Callable[[], object]) -> Iterator[float]:
    while True:
        began = time.perf_counter()
        step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        yield time.perf_counter() - began


def write_pngs(run: Run, folder: Path) -> torch.Tensor:
    loaded = api.dataset(run)
    rows = torch.arange(min(PICTURES, len(loaded)))
    for i, picture in enumerate(loaded.pictures(rows)):
        Image.fromarray(picture[..., 0]).save(folder / f"{i:05d}.png")
    return loaded.values(rows)["digit"]


def compare(run: Run, blocks: int, steps: int) -> dict[str, object]:
    """Seconds of a step of each contender, and the ratios."""
    with tempfile.TemporaryDirectory() as folder:
        labels = write_pngs(run, Path(folder))
        contenders = {
            "ours": ours(run),
            "bare": bare(run),
            "plain, no workers": plain(run, Path(folder), labels, 0),
            "plain, 2 workers": plain(run, Path(folder), labels, 2),
        }
        rounds: list[dict[str, float]] = []
        for block in range(blocks + 1):
            names = list(contenders)
            names = names[block % len(names) :] + names[: block % len(names)]
            rounds.append({name: statistics.fmean(next(contenders[name]) for _ in range(steps)) for name in names})
    return summary(rounds[1:], run.batch)  # the first round warms up


def summary(rounds: list[dict[str, float]], batch: int) -> dict[str, object]:
    """Medians over the rounds: seconds of a step, pictures a second, and the ratios taken round by round."""
    seconds = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
    over_plain = [min(v for k, v in r.items() if k.startswith("plain")) / r["ours"] for r in rounds]
    over_bare = [r["ours"] / r["bare"] - 1 for r in rounds]
    return {
        **{f"{k}, seconds a step": round(v, 5) for k, v in seconds.items()},
        "ours, pictures a second": round(batch / seconds["ours"], 1),
        "ours over best plain, pictures a second": round(statistics.median(over_plain), 3),
        "cost of the loop over bare": round(statistics.median(over_bare), 4),
        "cost of the loop over bare, least and most": [round(min(over_bare), 4), round(max(over_bare), 4)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--steps", type=int, default=8, help="in each block; a multiple of the run's lazy period keeps the blocks alike")
    parser.add_argument("--precision", default="both", choices=["both", "auto", "32"])
    parser.add_argument("--data", default="mnist", help="mnist (padded to 32 px), or digits (8 px) where it is not at hand")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    run = bench_run(given.data, 128, log_every=50)
    found = {}
    for wanted in ("auto", "32") if given.precision == "both" else (given.precision,):
        chosen = replace(run, precision=wanted)
        resolved = loop.precision(chosen, _model(chosen))
        found[resolved] = compare(replace(chosen, precision=resolved), given.blocks, given.steps)
    publish("train_step", run, found, given.out)


def bench_run(data: str, batch: int, log_every: int = 0) -> Run:
    """`cgan-mnist` without an end, at 32 px where the data has a choice, and without checkpoints and grids."""
    size = {"size": 32} if data == "mnist" else {}
    return replace(api.preset("cgan-mnist"), data=data, batch=batch, steps=10**9, save_every=0, sample_every=0, log_every=log_every, **size)


def publish(name: str, run: Run, by_precision: dict[str, dict], out: Path | None) -> None:
    """The result of a benchmark, printed, and kept where asked."""
    tell({"benchmark": name, "run": f"cgan, {run.data}, batch {run.batch}", "by_precision": by_precision}, out)


def tell(result: dict, out: Path | None) -> None:
    """What was measured, and on what: printed, and kept where asked."""
    text = json.dumps(result | {"machine": machine(), "versions": versions()}, indent=1)
    print(text)
    if out:
        out.write_text(text + "\n")


def _model(run: Run) -> Model:
    return api.build(run, api.dataset(run))


if __name__ == "__main__":
    main()
