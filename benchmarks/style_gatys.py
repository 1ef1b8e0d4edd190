"""Neural style transfer of real pictures: what it reaches, beside controls, what it costs, and the trade-off of content and style.

Three photographs, each in the style of five paintings of $CONDGEN_DATA/style_images, as `condgen stylize` paints them, but at one size:
200 evaluations from noise. All is measured on the picture a person gets: clipped, with 8 bits a channel.

    style_loss_drop     1 - style loss / that of the noise it starts from; content_loss_drop is the same of the content
    nearest_style       share of pictures whose Gram matrices are nearest to those of their own style, of six paintings, by their cosine
                        (`evaluation.textures`). The left three fifths of a painting are painted with; here its Grams are of crops of the
                        rest, which no descent has seen. By the distance that is descended it is nearest_style/relative: that one came
                        first, misplaced four of fifteen, and as often the paintings themselves, and the cosine took its place
    edge_correlation    with the photograph, `evaluation.photographs`
    passed/...          share of pictures that pass the bar of each (`BARS`)

Controls: the photograph itself for style, an unrelated photograph for content, the noise for edges. Seconds are the processor's, of one
thread: other work on the machine changes them least. `--kept` holds each picture and its numbers; what is there, and was made in the same
way, is not run again.

    python benchmarks/style_gatys.py [--side 224] [--net distilled] [--kept FOLDER] [--figures FOLDER] [--out FILE]
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condgen.backbones import feature_net
from condgen.data.cache import data_folder
from condgen.data.images import decode
from condgen.data.store import to_bytes, to_float
from condgen.editing.coarse import of_area, resized
from condgen.editing.feedforward import stylize_fast
from condgen.editing.stylize import SMOOTH, Plan, stylize
from condgen.editing.tiles import Tiled
from condgen.editing.transfer import RECIPES, Recipe, Transfer
from condgen.evaluation.photographs import edge_correlation
from condgen.evaluation.protocols import machine, versions
from condgen.networks.features import FeatureNet
from condgen.objectives.perceptual import gram, relative
from limits import Operations

PHOTOS = ("tubingen", "golden_gate", "hoovertowernight")
STYLES = ("starry_night", "the_scream", "woman-with-hat-matisse", "picasso_selfport1907", "shipwreck")
SHOWN = tuple(s for s in STYLES if not s.startswith("picasso"))
"""In the gallery: paintings that are in the public domain."""
OTHERS = (*STYLES, "seated-nude")
"""Among which the nearest style is looked for."""
PAINTED, CROPS, CROP_PX = 0.6, 4, 96
READABLE = 30.0
SWEEP = (3.0, 10.0, 100.0, 300.0, 1000.0)
SWEPT = [("tubingen", "starry_night"), ("tubingen", "the_scream"), ("golden_gate", "shipwreck")]
"""The first of them is painted at all weights of the sweep, the others at the `FAR` ones."""
FAR = (3.0, 300.0)
STEPS = 200
MEGAPIXEL = (832, 1248)
"""1.04 megapixels, on the grid of the tiles."""
BARS = {"style_loss_drop": 0.99, "content_loss_drop": 0.5, "edge_correlation": 0.2}
Row = dict[str, Any]
Distance = Callable[[Tensor, Tensor], float]


# --- pictures -------------------------------------------------------------------------------------------------------------


def picture(name: str) -> Tensor:
    """(1, 3, h, w) in [-1, 1], as it lies in the data."""
    folder = data_folder()
    assert folder, "set CONDGEN_DATA"
    return to_float(np.array(decode((folder / "style_images" / f"{name}.webp").read_bytes()))[None])


def photo(name: str, side: int) -> Tensor:
    x = picture(name)
    scale = side / max(x.shape[-2:])
    return resized(x, [round(n * scale) for n in x.shape[-2:]]).clamp(-1, 1)


def halves(name: str, area: int) -> tuple[Tensor, Tensor]:
    """The part of a painting that is painted with, of that area, and the held-out rest at the same scale."""
    x = picture(name)
    cut = round(PAINTED * x.shape[-1])
    left, right = x[..., :cut], x[..., cut:]
    size = of_area(left, area)
    scale = size[0] / left.shape[-2]
    return resized(left, size).clamp(-1, 1), resized(right, [round(n * scale) for n in right.shape[-2:]]).clamp(-1, 1)


def seen_by_a_person(x: Tensor) -> Tensor:
    """Clipped, and with 8 bits a channel."""
    return to_float(to_bytes(x))


# --- which style is it? -----------------------------------------------------------------------------------------------------


def cosine(g: Tensor, a: Tensor) -> float:
    """|G/|G| - A/|A||^2, as `evaluation.textures` has it: at no photograph's size it misplaces a painting itself."""
    return float(2 - 2 * (g * a).sum() / (g.norm() * a.norm()))


def by_size(g: Tensor, a: Tensor) -> float:
    """|G - A|^2 / |A|^2, which is descended. It takes dull pictures to be near to what is strong, and misplaces two of the paintings."""
    return float(relative(g, a))


def grams(net: FeatureNet, x: Tensor, layers: Sequence[str]) -> list[Tensor]:
    with torch.no_grad():
        return [gram(a) for a in net(x, layers).values()]


def held_out(net: FeatureNet, name: str, area: int, layers: Sequence[str]) -> list[Tensor]:
    """Mean Gram matrices of crops of a painting's held-out part."""
    rest = halves(name, area)[1]
    draw = torch.Generator().manual_seed(0)
    h, w = (min(CROP_PX, n) for n in rest.shape[-2:])
    found = []
    for _ in range(CROPS):
        top, left = (int(torch.randint(n - c + 1, (), generator=draw)) for n, c in zip(rest.shape[-2:], (h, w), strict=True))
        found.append(grams(net, rest[..., top : top + h, left : left + w], layers))
    return [torch.stack(of_layer).mean(0) for of_layer in zip(*found, strict=True)]


def nearest(net: FeatureNet, x: Tensor, layers: Sequence[str], distance: Distance) -> str:
    """The painting whose Grams are nearest to those of x."""
    own = grams(net, x, layers)
    return min(OTHERS, key=lambda name: sum(distance(g, a) for g, a in zip(own, references(net, name, x, layers), strict=True)))


REFERENCES: dict[tuple[str, str, int], list[Tensor]] = {}


def references(net: FeatureNet, name: str, x: Tensor, layers: Sequence[str]) -> list[Tensor]:
    """`held_out` at the scale of x, made once."""
    area = x.shape[-2] * x.shape[-1]
    if (key := (net.id, name, area)) not in REFERENCES:
        REFERENCES[key] = held_out(net, name, area, layers)
    return REFERENCES[key]


# --- painting ---------------------------------------------------------------------------------------------------------------


def job_name(content: str, style: str, beta: float, start: str) -> str:
    return f"{content}--{style}--{beta:g}--{start}"


def recipe_of(beta: float) -> Recipe:
    return replace(SMOOTH, style=beta, steps=STEPS)


def way(net: FeatureNet, beta: float, side: int) -> Row:
    """All that a painting's numbers depend on beside its name, as JSON has it."""
    return json.loads(json.dumps({"net": net.id, "side": side, "recipe": asdict(recipe_of(beta))}))


def painted(net: FeatureNet, content: str, style: str, beta: float, start: str, side: int, kept: Path) -> Row:
    """One painting's losses, or those that lie in `kept` already, made in the same way; its picture lies beside them."""
    file = kept / f"{job_name(content, style, beta, start)}.json"
    row = json.loads(file.read_text()) if file.exists() else {}
    if row.get("way") != way(net, beta, side):
        row = paint(net, content, style, beta, start, side, file)
    return {k: v for k, v in row.items() if k in KEPT}


KEPT = ("content", "style", "beta", "start", "seconds", "after", "photo", "other photo", "before", "noise")


def paint(net: FeatureNet, content: str, style: str, beta: float, start: str, side: int, file: Path) -> Row:
    p = photo(content, side)
    a = halves(style, p.shape[-2] * p.shape[-1])[0]
    work = stylize(net, p, [a], Plan(recipe_of(beta), start, levels=1))
    began = time.process_time()
    for _ in work:
        pass
    seconds = time.process_time() - began
    x = seen_by_a_person(work.picture())
    row = {"content": content, "style": style, "beta": beta, "start": start, "seconds": seconds, "way": way(net, beta, side)}
    row |= {"after": work.transfer.measures(x), **controls(work.transfer, content, side)}
    save(x, file.with_suffix(".png"))
    file.write_text(json.dumps(row))
    print(f"{file.stem}: {row['before']} -> {row['after']}, {seconds:.1f} s", flush=True)
    return row


def reread(content: str, style: str, beta: float, start: str, side: int, kept: Path) -> tuple[Tensor, Tensor]:
    """A painting as it lies in `kept`, and its photograph."""
    file = kept / f"{job_name(content, style, beta, start)}.png"
    return to_float(np.array(decode(file.read_bytes()))[None]), photo(content, side)


def judged(net: FeatureNet, judge: FeatureNet, x: Tensor, p: Tensor, style: str) -> Row:
    """The nearest style of a picture by the net that painted it, by another, and by the other distance, beside that of the painting's own
    and of the photograph; and its edges."""
    layers, real = RECIPES["relative"].style_layers, halves(style, p.shape[-2] * p.shape[-1])[0]
    found: Row = {"edges": edge_correlation(x, p), "style": style}
    ways: list[tuple[str, FeatureNet, Distance]] = [("net", net, cosine), ("judge", judge, cosine), ("relative", net, by_size)]
    for name, eyes, distance in ways:
        shown = (("nearest", x), ("photo", p), ("real", real))
        found |= {f"{what} by the {name}": nearest(eyes, y, layers, distance) for what, y in shown}
    return found


def controls(transfer: Transfer, content: str, side: int) -> Row:
    """The same measures where nothing was painted."""
    p = transfer.content
    other = resized(photo(next(n for n in PHOTOS if n != content), side), p.shape[-2:])
    noise = transfer.start("noise")
    measured = {"photo": transfer.measures(p), "other photo": transfer.measures(other)}
    return {**measured, "before": transfer.measures(noise), "noise": edge_correlation(noise, p)}


def fast(net: FeatureNet, judge: FeatureNet, method: str, side: int) -> list[Row]:
    """The same pairs in one pass, by the same measures."""
    rows = []
    for content in PHOTOS:
        p = photo(content, side)
        for style in STYLES:
            a = halves(style, p.shape[-2] * p.shape[-1])[0]
            began = time.process_time()
            with torch.no_grad():
                x = seen_by_a_person(stylize_fast(p, a, method=method))
            seconds = time.process_time() - began
            transfer = Transfer(net, RECIPES["relative"], p, [a])
            measured = {"after": transfer.measures(x), **judged(net, judge, x, p, style), **controls(transfer, content, side)}
            rows.append({"seconds": seconds, **measured})
    return rows


def save(x: Tensor, file: Path) -> None:
    from PIL import Image

    Image.fromarray(to_bytes(x)[0]).save(file)


# --- cost -------------------------------------------------------------------------------------------------------------------


def least_seconds(work: Callable[[], object], repeats: int = 15) -> float:
    """Of one call, processor time: the least, which other work on the machine delays least."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        work()
        times.append(time.process_time() - began)
    return min(times)


def throughput(net: FeatureNet, side: int) -> Row:
    """One evaluation's arithmetic, its time, and the time that arithmetic alone would take at the machine's rate of a convolution."""
    p = photo(PHOTOS[0], side)
    transfer = Transfer(net, RECIPES["relative"], p, [p])
    x = transfer.start("noise").requires_grad_()

    def evaluate() -> None:
        torch.stack([t.reshape(()) for t in transfer.energy(x).values()]).sum().backward()

    with Operations() as counter:
        evaluate()
    taken = least_seconds(evaluate)
    rate = 2 * 9 * 64**2 * 32 * 32**2 / least_seconds(convolution(32))
    return {
        "px": list(p.shape[-2:]),
        "operations": counter.total,
        "seconds": taken,
        "machine, Gop/s": rate / 1e9,
        "lower bound, seconds": counter.total / rate,
        "achieved over machine": counter.total / rate / taken,
    }


def convolution(batch: int) -> Callable[[], object]:
    """As `limits.convolution_rate` has it: 3x3, 64 channels, 32 px, forward alone, channels last."""
    like = {"memory_format": torch.channels_last}
    x, w = torch.randn(batch, 64, 32, 32).contiguous(**like), torch.randn(64, 64, 3, 3).contiguous(**like)
    return lambda: torch.nn.functional.conv2d(x, w, padding=1)


def in_a_process_of_its_own(net: str, way: str) -> Row:
    """What a picture of a megapixel takes: peak memory of a fresh process, less what it had before the first evaluation was prepared."""
    done = subprocess.run([sys.executable, __file__, "--megapixel", way, "--net", net], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def most_held() -> float:
    """MiB at the peak of this process so far. Not `getrusage`'s, which begins at what the process that started it held."""
    line = next(row for row in Path("/proc/self/status").read_text().splitlines() if row.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def megapixel(net_name: str, way: str) -> Row:
    """One evaluation at 1.04 megapixels, the net asked at once or in tiles."""
    torch.set_num_threads(1)
    net = feature_net(net_name)
    p = resized(picture(PHOTOS[0]), MEGAPIXEL).clamp(-1, 1)
    before = most_held()
    eyes = net if way == "at once" else Tiled(net)
    transfer = Transfer(eyes, RECIPES["relative"], p, [p.flip(-1)])
    began, x = time.process_time(), transfer.start("noise").requires_grad_()
    torch.stack([t.reshape(()) for t in transfer.energy(x).values()]).sum().backward()
    seconds = time.process_time() - began
    return {"way": way, "peak, MiB": most_held(), "before, MiB": before, "seconds an evaluation": seconds}


# --- the result -------------------------------------------------------------------------------------------------------------


def drop(row: Row, what: str, of: str = "after") -> float:
    return 1 - row[of][what] / row["before"][what]


def metric(values: Sequence[float], provenance: str, ceiling: float | None = None, controls: Sequence[float] = ()) -> Row:
    """A mean over paintings, beside the mean of the controls."""
    control = statistics.fmean(controls) if controls else None
    value = statistics.fmean(values)
    return {"value": value, "reported": None, "ceiling": ceiling, "control": control, "n": len(values), "provenance": provenance}


def right(rows: Sequence[Row], key: str) -> list[float]:
    return [float(r[key] == r["style"]) for r in rows]


JUDGES = {
    "net": ("nearest_style", "cosine of Grams; the distance that came first is nearest_style/relative"),
    "judge": ("nearest_style/squeezenet", "cosine of Grams|seen by squeezenet1_1, which did not paint"),
    "relative": ("nearest_style/relative", "relative distance of Grams, which is descended"),
}


def of_paintings(rows: Sequence[Row], how: str, suffix: str = "") -> dict[str, Row]:
    """The numbers of some paintings: means, and the worst."""
    style, content, edges = [drop(r, "style") for r in rows], [drop(r, "content") for r in rows], [r["edges"] for r in rows]
    found = {
        "style_loss_drop": metric(style, f"{how}|control=the photograph", 1.0, [drop(r, "style", "photo") for r in rows]),
        "content_loss_drop": metric(content, f"{how}|control=another photograph", 1.0, [drop(r, "content", "other photo") for r in rows]),
        "edge_correlation": metric(edges, f"{how}|control=the noise", 1.0, [r["noise"] for r in rows]),
    }
    for name, (key, said) in JUDGES.items():
        got, real, photos = (right(rows, f"{what} by the {name}") for what in ("nearest", "real", "photo"))
        told = f"{how}|{said}|of {len(OTHERS)} paintings|ceiling=the painting itself|control=the photograph"
        found[key] = metric(got, told, statistics.fmean(real), photos)
    for name, values in (("style_loss_drop", style), ("content_loss_drop", content), ("edge_correlation", edges)):
        found[f"{name}/worst"] = metric([min(values)], f"{how}|the worst of {len(rows)}", 1.0)
        passed = [float(v >= BARS[name]) for v in values]
        found[f"passed/{name}"] = metric(passed, f"{how}|share of pictures that reach {BARS[name]:g}", 1.0)
    return {name + suffix: m for name, m in found.items()}


def result(rows: Sequence[Row], quick: dict[str, list[Row]], cost: Row, memory: list[Row], how: str) -> Row:
    """As `results_table` reads it."""
    from_noise = [r for r in rows if r["start"] == "noise"]
    readable = [r for r in from_noise if r["beta"] == READABLE]
    metrics = of_paintings(readable, f"{how}|beta={READABLE:g}")
    for beta in FAR:
        of_beta = [r for r in from_noise if r["beta"] == beta]
        metrics |= {
            k: v
            for k, v in of_paintings(of_beta, f"{how}|beta={beta:g}", f"/beta {beta:g}").items()
            if not k.startswith("passed") and "worst" not in k
        }
    if started := [r for r in rows if r["start"] == "content"]:
        kept = of_paintings(started, f"{how}|from the content|beta={started[0]['beta']:g}", "/from the content")
        metrics |= {k: v for k, v in kept.items() if not k.startswith("passed") and "worst" not in k}
    for method, found in quick.items():
        metrics |= {
            k: v
            for k, v in of_paintings(found, f"{'|'.join(how.split('|')[:2])}|one pass", f"/{method}").items()
            if not k.startswith("passed") and "worst" not in k
        }
        metrics[f"seconds/{method}"] = metric([r["seconds"] for r in found], "processor, one thread, a picture")
    metrics["seconds"] = metric([r["seconds"] for r in readable], f"{how}|processor, one thread, a picture")
    bound = (
        f"{cost['operations'] / 1e9:.2f} Gop an evaluation over {cost['machine, Gop/s']:.0f} Gop/s of a 3x3 convolution; value over bound"
    )
    metrics["seconds/over the lower bound"] = metric([cost["seconds"] / cost["lower bound, seconds"]], bound, 1.0)
    for one in memory:
        told = f"{MEGAPIXEL[0]}x{MEGAPIXEL[1]} px, an evaluation of {one['seconds an evaluation']:.1f} s, peak of a process that held "
        metrics[f"memory_mib/{one['way']}"] = metric([one["peak, MiB"]], told + f"{one['before, MiB']:.0f} MiB before")
    seconds = sum(r["seconds"] for r in rows)
    about = {"seconds": round(seconds, 1), "machine": machine(), "versions": versions(), "seed": 0}
    return {"preset": "style-gatys", "metrics": metrics, "throughput": cost, "memory": memory, "by_painting": list(rows), **about}


# --- figures ----------------------------------------------------------------------------------------------------------------


def gallery(kept: Path, out: Path, side: int) -> None:
    """Photographs down, paintings across, each painted in each."""
    from PIL import Image

    cell = (160, 120)
    sheet = Image.new("RGB", ((len(SHOWN) + 1) * (cell[0] + 4), (len(PHOTOS) + 1) * (cell[1] + 4)), "white")

    def put(image: Image.Image, column: int, row: int) -> None:
        image = image.convert("RGB")
        image.thumbnail(cell, Image.Resampling.LANCZOS)
        left, top = column * (cell[0] + 4) + (cell[0] - image.width) // 2, row * (cell[1] + 4) + (cell[1] - image.height) // 2
        sheet.paste(image, (left, top))

    def pixels(x: Tensor) -> Image.Image:
        return Image.fromarray(to_bytes(x)[0])

    for j, style in enumerate(SHOWN, 1):
        put(pixels(halves(style, side * side * 3 // 4)[0]), j, 0)
    for i, content in enumerate(PHOTOS, 1):
        put(pixels(photo(content, side)), 0, i)
        for j, style in enumerate(SHOWN, 1):
            with Image.open(kept / f"{job_name(content, style, READABLE, 'noise')}.png") as image:
                put(image, j, i)
    sheet.save(out, quality=88)


def trade_off(rows: Sequence[Row], kept: Path, out: Path) -> None:
    """The paper's figure: the more the style counts, the less is left of the content; pictures above, losses below."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from PIL import Image

    content, style = SWEPT[0]
    betas = sorted({READABLE, *SWEEP})
    figure = pyplot.figure(figsize=(9, 3.9), dpi=100, layout="constrained")
    grid = figure.add_gridspec(2, len(betas), height_ratios=(1, 1.2))
    for i, beta in enumerate(betas):
        axes = figure.add_subplot(grid[0, i])
        with Image.open(kept / f"{job_name(content, style, beta, 'noise')}.png") as image:
            axes.imshow(np.asarray(image))
        axes.set_title(f"style weight {beta:g}", fontsize=8)
        axes.set_axis_off()
    axes = figure.add_subplot(grid[1, :])
    for content, style in SWEPT:
        own = {r["beta"]: r["after"] for r in rows if (r["content"], r["style"], r["start"]) == (content, style, "noise")}
        axes.plot(sorted(own), [own[b]["content"] for b in sorted(own)], "o-", label=f"content, {content} in {style}")
        axes.plot(sorted(own), [10 * own[b]["style"] for b in sorted(own)], "s--", color=axes.lines[-1].get_color(), label="10 x style")
    axes.set_xscale("log")
    axes.set_xlabel("style weight")
    axes.set_ylabel("relative loss")
    axes.legend(fontsize=6, ncols=3)
    figure.savefig(out)


# --- all of it --------------------------------------------------------------------------------------------------------------


def planned() -> list[tuple[str, str, float, str]]:
    """(photograph, painting, beta, start), the most wanted first."""
    pairs = [(content, style) for content in PHOTOS for style in STYLES]
    jobs = [(*pair, READABLE, "noise") for pair in pairs]
    jobs += [(*pair, beta, "noise") for pair in SWEPT for beta in (SWEEP if pair == SWEPT[0] else FAR)]
    return jobs + [(*pair, READABLE, "content") for pair in SWEPT]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--net", default="distilled")
    parser.add_argument("--jobs", type=int, help="only the first so many")
    parser.add_argument("--kept", type=Path, default=Path("runs/style-gatys"))
    parser.add_argument("--figures", type=Path, help="a folder for style-transfer.png and style-tradeoff.png")
    parser.add_argument("--megapixel", choices=["at once", "tiles"], help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    if given.megapixel:
        print(json.dumps(megapixel(given.net, given.megapixel)))
        return
    torch.set_num_threads(1)
    given.kept.mkdir(parents=True, exist_ok=True)
    net, judge = feature_net(given.net), feature_net("squeezenet")
    rows = [painted(net, *job, given.side, given.kept) for job in planned()[: given.jobs]]
    rows = [row | judged(net, judge, *reread(*job, given.side, given.kept), job[1]) for row, job in zip(rows, planned(), strict=False)]
    quick = {method: fast(net, judge, method, given.side) for method in ("adain", "wct")}
    memory = [in_a_process_of_its_own(given.net, way) for way in ("at once", "tiles")]
    found = result(
        rows,
        quick,
        throughput(net, given.side),
        memory,
        f"{net.id}|{given.side} px|{STEPS} evaluations|tv={SMOOTH.tv:g}|bounds={SMOOTH.bounds:g}",
    )
    print(json.dumps({k: v["value"] for k, v in found["metrics"].items()}, indent=1))
    if given.figures:
        gallery(given.kept, given.figures / "style-transfer.jpg", given.side)
        trade_off(rows, given.kept, given.figures / "style-tradeoff.png")
    if given.out:
        given.out.write_text(json.dumps(found, indent=1, allow_nan=False) + "\n")


if __name__ == "__main__":
    main()
