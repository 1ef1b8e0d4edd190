"""Deep photo style transfer on the sets of $CONDGEN_DATA/deep_photo, beside the authors' own results.

    plain       style transfer of the whole pictures, as many evaluations as both stages have
    unmasked    both stages without masks
    clustered   both stages with masks by clustering, k = 5, which look at no segmentation; on the swept sets
    masked      both stages with the authors' masks: `stage1`, and stage 2 at each lambda
    filtered    its result after the smooth local affine filter, which is what `condgen stylize --photo` writes; `grain`: after the guided
                filter, with the photograph's fine detail put back; `both`: the one and then the other
    authors     their published result, lossy and brought to this size: its L_m is only indicative

Sets are the first of those whose pictures and masks are all there, by number: chosen before any was run. Some have the same photograph
and another style (3 and 4, 11 and 12), so photographs are counted too. Sets 1 and 5 are those on which lambda was chosen: all is told
without them too. Metrics without a suffix are of the filtered result, `/unfiltered` of what the filter was given. Pictures are clipped to
[-1, 1] before they are measured. L_m is the Laplacian's at eps 1e-7; colours are compared class by class with the authors' masks, for
every variant.

    python benchmarks/deep_photo.py [--sets 16] [--side 192] [--net distilled] [--kept FOLDER] [--out benchmarks/results/deep-photo.json]

`--kept` holds each set's numbers and pictures as they come, in a folder for each net, size and number of steps; what is there is not run
again.
"""

import argparse
import hashlib
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from condgen.backbones import feature_net
from condgen.data.cache import data_folder
from condgen.editing.masks import clustered, read_masks
from condgen.editing.matting import laplacian, photorealism
from condgen.editing.photo import WEIGHT, Photo
from condgen.editing.stylize import Plan
from condgen.editing.transfer import RECIPES, Masks
from condgen.evaluation.photographs import colour_distance, edge_correlation
from condgen.evaluation.protocols import machine, versions
from condgen.networks.features import FeatureNet

NUMBERS = range(1, 61)
CHOSEN_ON = (1, 5)
SWEEP = (1e-4, 1e-3, WEIGHT, 1e-1)
SWEPT = 3
"""So many sets, the first that lambda was not chosen on, are run at every lambda."""
CLUSTERS = 5
BARS = {"photorealism_ratio": 1 / 20, "colour_distance_ratio": 0.1, "beside_authors": 1.5, "mask_gain": 0.4, "behind_authors": 0.15}

Row = dict[str, Any]


@dataclass(frozen=True)
class Given:
    """One set: pictures (1, 3, h, w) in [-1, 1], and the Laplacian of the content."""

    number: int
    content: Tensor
    style: Tensor
    authors: Tensor
    masks: Masks
    notes: list[str]
    m: Any

    def measured(self, x: Tensor) -> dict[str, float]:
        x = x.clamp(-1, 1)
        colours = colour_distance(x, self.masks.content, self.style, self.masks.styles[0])
        return {"L_m": float(photorealism(x.double(), self.m)), "edges": edge_correlation(x, self.content), "colours": colours}


def files(folder: Path, number: int) -> list[Path]:
    return [folder / f"{name}.webp" for name in (f"in{number}", f"tar{number}", f"in{number}_seg", f"tar{number}_seg", f"best{number}")]


def picture(path: Path, side: int, size: tuple[int, int] | None = None) -> Tensor:
    """(1, 3, h, w) in [-1, 1], its longer side `side` px, or of `size` (w, h)."""
    from PIL import Image

    image = Image.open(path).convert("RGB")
    scale = side / max(image.size)
    image = image.resize(size or (round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1


def read(folder: Path, number: int, side: int) -> Given:
    content, style, content_masks, style_masks, authors = files(folder, number)
    x, s = picture(content, side), picture(style, side)
    masks, notes = read_masks(x, [s], content_masks, [style_masks])
    return Given(number, x, s, picture(authors, side, (x.shape[-1], x.shape[-2])), masks, notes, laplacian(x))


# --- one set --------------------------------------------------------------------------------------------------------------


def first_stage(photo: Photo, steps: int) -> Tensor:
    """Goes on to `steps` evaluations of the first stage, and gives the best picture so far."""
    for _ in islice(photo, steps - photo.step):
        pass
    return photo.first.descent.best.clone()


def second_stage(photo: Photo, x: Tensor, weight: float = WEIGHT) -> Photo:
    """The whole second stage, from picture x."""
    photo.weight = weight
    photo.begin_second(x)
    for _ in photo:
        pass
    return photo


def variants(net: FeatureNet, given: Given, steps: int, sweep: Sequence[float]) -> Iterator[tuple[str, Tensor]]:
    """Each picture by name, as it comes."""
    yield "content", given.content
    yield "authors", given.authors

    def begun(masks: Masks | None, first: int = steps) -> Photo:
        plan = Plan(replace(RECIPES["relative"], steps=first), start="noise", seed=0)
        return Photo(net, given.content, [given.style], masks, plan, steps=steps)

    plain = begun(None, 2 * steps)
    halfway = first_stage(plain, steps)
    yield "plain, half", halfway
    yield "plain", first_stage(plain, 2 * steps)
    yield "unmasked", second_stage(plain, halfway).picture(filtered=False)
    if len(sweep) > 1:
        photo = begun(clustered(given.content, [given.style], CLUSTERS)[0])
        yield "clustered", second_stage(photo, first_stage(photo, steps)).picture(filtered=False)
    photo = begun(given.masks)
    first = first_stage(photo, steps)
    yield "stage1", first
    for weight in sweep:
        yield f"lambda {weight:g}", second_stage(photo, first, weight).picture(filtered=False)
        if weight == WEIGHT:
            yield "filtered", photo.picture()
            yield "grain", photo.picture(filtered=False, grain=True)
            yield "both", photo.picture(grain=True)


def run_set(net: FeatureNet, given: Given, steps: int, sweep: Sequence[float], kept: Path) -> Row:
    """Its numbers by variant; its pictures go to `kept`."""
    row: Row = {"set": given.number, "classes": list(given.masks.names), "notes": given.notes, "seconds": {}}
    began = time.process_time()
    for name, x in variants(net, given, steps, sweep):
        row["seconds"][name] = round(time.process_time() - began, 2)
        row[name] = {k: round(v, 5) for k, v in given.measured(x).items()}
        save(kept / f"{given.number}-{name}.png", x)
        began = time.process_time()
    save(kept / f"{given.number}-style.png", given.style)
    return row


def save(path: Path, x: Tensor) -> None:
    from PIL import Image

    pixels = ((x[0].clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(path)


# --- all of them ----------------------------------------------------------------------------------------------------------


def geometric(values: Sequence[float]) -> float:
    return math.exp(statistics.fmean(math.log(v) for v in values))


def of(rows: Sequence[Row], name: str, what: str) -> list[float]:
    return [r[name][what] for r in rows]


def ratios(rows: Sequence[Row], what: str, name: str, to: str) -> list[float]:
    return [r[name][what] / r[to][what] for r in rows]


OURS = f"lambda {WEIGHT:g}"
RESULTS = {"": "filtered", "/unfiltered": OURS, "/grain": "grain", "/both": "both", "/unmasked": "unmasked"}


def metrics(rows: Sequence[Row], tested: str) -> dict[str, Row]:
    """As results files have them: of a ratio the geometric mean over the sets, of a correlation the mean.

    Args:
        rows: of the sets.
        tested: the net, the size and the number of evaluations.
    """
    groups = {"": rows, "/without 1 and 5": [r for r in rows if r["set"] not in CHOSEN_ON]}
    found: dict[str, Row] = {}

    def tell(name: str, of_sets: Sequence[Row], value: float, ceiling: float | None, control: float | None, words: str) -> None:
        numbers = {"value": value, "reported": None, "ceiling": ceiling, "control": control}
        found[name] = {k: None if v is None else float(f"{v:.4g}") for k, v in numbers.items()}
        found[name] |= {"n": len(of_sets), "provenance": f"{name.split('/')[0]}|{told(of_sets)}|{tested}|{words}"}

    for (tail, some), (kind, name) in ((g, k) for g in groups.items() for k in RESULTS.items()):
        l_m = partial_mean(some, "L_m", "plain")
        words = "L_m over plain transfer's|ceiling=authors|control=plain"
        tell(f"photorealism_ratio{kind}{tail}", some, l_m(name), l_m("authors"), 1.0, words)
        colours = partial_mean(some, "colours", "content")
        words = "class colours' distance to the style's over the content's|ceiling=authors|control=plain"
        tell(f"colour_distance_ratio{kind}{tail}", some, colours(name), colours("authors"), colours("plain"), words)
        edges = [statistics.fmean(of(some, n, "edges")) for n in (name, "authors", "plain")]
        tell(f"edge_correlation{kind}{tail}", some, *edges, "Sobel magnitudes of luminance|ceiling=authors|control=plain")
    several = [r for r in rows if len(r["classes"]) > 1]
    for tail in groups:
        some = [r for r in several if r in groups[tail]]
        gain = geometric(ratios(some, "colours", OURS, "unmasked"))
        words = "colour distance over the unmasked run's, both unfiltered|sets of two classes or more|control=unmasked"
        tell(f"mask_gain{tail}", some, gain, None, 1.0, words)
    return found | passes(groups, tested)


def partial_mean(rows: Sequence[Row], what: str, to: str) -> Callable[[str], float]:
    return lambda name: geometric(ratios(rows, what, name, to))


def passed(r: Row, name: str) -> dict[str, bool]:
    """Which bars a set's result passes."""
    x, authors, plain, content = r[name], r["authors"], r["plain"], r["content"]
    return {
        "photorealism": x["L_m"] <= BARS["photorealism_ratio"] * plain["L_m"],
        "edges, twice plain": x["edges"] >= 2 * plain["edges"],
        "edges, authors": x["edges"] >= authors["edges"] - BARS["behind_authors"],
        "colours, content": x["colours"] <= BARS["colour_distance_ratio"] * content["colours"],
        "colours, authors": x["colours"] <= BARS["beside_authors"] * authors["colours"],
        "masks": len(r["classes"]) < 2 or x["colours"] <= BARS["mask_gain"] * r["unmasked"]["colours"],
    }


def passes(groups: Mapping[str, Sequence[Row]], tested: str) -> dict[str, Row]:
    """The part of the sets that passes each bar; of the authors' results, and of plain transfer's."""
    found = {}
    for (tail, rows), kind in ((g, k) for g in groups.items() for k in ("", "/unfiltered", "/grain")):
        for bar in passed(rows[0], RESULTS[kind]):
            parts = (statistics.fmean(float(passed(r, n)[bar]) for r in rows) for n in (RESULTS[kind], "authors", "plain"))
            value, authors, plain = (round(p, 4) for p in parts)
            words = f"passed|part of the sets that passes the bar|{told(rows)}|{tested}|ceiling=authors|control=plain"
            numbers = {"value": value, "reported": None, "ceiling": authors, "control": plain}
            found[f"passed/{bar}{kind}{tail}"] = numbers | {"n": len(rows), "provenance": words}
    return found


def told(rows: Sequence[Row]) -> str:
    """Which sets, and of how many photographs: sets may share one."""
    of_sets = ",".join(str(r["set"]) for r in rows)
    return f"deep_photo sets {of_sets}: {len({r['photograph'] for r in rows})} photographs in {len(rows)} sets"


def sweep_of(rows: Sequence[Row], names: Sequence[str]) -> Row:
    """By variant, means over the sets that were run in each."""
    some = [r for r in rows if all(n in r for n in names)]
    told: Row = {
        n: {"L_m": round(geometric(of(some, n, "L_m")), 3)} | {w: round(statistics.fmean(of(some, n, w)), 4) for w in ("edges", "colours")}
        for n in names
    }
    falls = [all(r[a]["L_m"] > r[b]["L_m"] for a, b in zip(names, names[1:])) for r in some]
    return {"sets": [r["set"] for r in some], "means": told, "sets where L_m falls at every step": sum(falls)}


def collected(given: argparse.Namespace) -> list[Row]:
    folder = data_folder()
    if folder is None or not (folder / "deep_photo").is_dir():
        raise SystemExit("$CONDGEN_DATA/deep_photo is missing")
    folder = folder / "deep_photo"
    numbers = [n for n in NUMBERS if all(f.is_file() for f in files(folder, n))][: given.sets]
    swept = [n for n in numbers if n not in CHOSEN_ON][:SWEPT]
    net, rows = feature_net(given.net), []
    kept = given.kept / f"{net.id}-{given.side}-{given.steps}"
    kept.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        file = kept / f"{number}.json"
        if not file.is_file():
            row = run_set(net, read(folder, number, given.side), given.steps, SWEEP if number in swept else (WEIGHT,), kept)
            file.write_text(json.dumps(row))
        photograph = hashlib.sha256(files(folder, number)[0].read_bytes()).hexdigest()[:8]
        rows.append(json.loads(file.read_text()) | {"photograph": photograph})
        print(number, json.dumps({n: rows[-1][n] for n in ("content", "authors", "plain", "unmasked", OURS, "filtered")}), flush=True)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=16)
    parser.add_argument("--side", type=int, default=192, help="of all pictures, in px")
    parser.add_argument("--steps", type=int, default=200, help="evaluations of each stage")
    parser.add_argument("--net", default="distilled")
    parser.add_argument("--kept", type=Path, default=Path("runs/deep-photo"))
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = collected(given)
    tested = f"{feature_net(given.net).id}|{given.side} px|{given.steps}+{given.steps} evaluations|lambda {WEIGHT:g}|eps 1e-7|v2"
    result = {
        "preset": "deep-photo",
        "metrics": metrics(rows, tested),
        "sweep": sweep_of(rows, ["stage1", *(f"lambda {w:g}" for w in SWEEP)]),
        "clusters": sweep_of(rows, ["content", "plain", "unmasked", "clustered", OURS, "authors"]),
        "by_set": rows,
        "seconds": round(sum(sum(r["seconds"].values()) for r in rows), 1),
        "machine": machine(),
        "versions": versions(),
        "seed": 0,
    }
    print(json.dumps({k: m["value"] for k, m in result["metrics"].items()}, indent=1), json.dumps(result["sweep"], indent=1))
    if given.out:
        given.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
