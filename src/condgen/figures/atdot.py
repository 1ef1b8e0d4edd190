"""What products with attribute vectors tell: ROC curves, the scores of one attribute, and the table of all areas.

White 2016, arXiv 1609.04468: AtDot, and the lecture's table of 40 attributes. Vectors are made of training rows and read on test rows, as
the metric `attribute_auc` does; beside each area stand that of the same made of pixels, and of random directions.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from condgen import api
from condgen.data.splits import parse_split
from condgen.editing.space import require
from condgen.evaluation.attributes import Reading, readings_of
from condgen.evaluation.curves import COLOURS
from condgen.figures.canvas import plain, write
from condgen.figures.subject import known, pictures_of, preferred, run_of

CURVES = ("smiling", "male", "eyeglasses", "young", "mouth_slightly_open", "blond_hair")
BINS = 40
LINE, TABLE_ROWS = 0.17, 20
"""Inches of a line of the table; rows from which it stands in two columns."""
HEADS = ("latents", "pixels", "random")


def draw(out: Path, run: str, attributes: Sequence[str] = ()) -> Path:
    """Three panels: ROC curves; a histogram of the first attribute's scores, with its threshold; the areas of all.

    Args:
        out: a PNG.
        run: of a model that encodes, whose data are still there, with a test split.
        attributes: of the data, whose curves are drawn; or classes of its label. By default up to six that read well.

    Raises:
        BadInput: for a model without an encoder, data without attributes or labels, an attribute that too few rows have.
    """
    model = api.load(run)
    require(model, "encode")
    told = run_of(model, run)
    train, test = (pictures_of(model, told, split) for split in (parse_split(told.split)[0], "test"))
    found = readings_of(model, train, test).found
    names = known(attributes, found) or preferred(found, CURVES, len(CURVES))
    tables = 1 + (len(found) > TABLE_ROWS)
    lines = 3 + -(-len(found) // tables)
    with plain(9.2 + 3.6 * tables, max(4.6, 0.6 + LINE * lines), layout="constrained") as figure:
        curves, scores, table = figure.subplots(1, 3, width_ratios=[4.4, 4.4, 3.6 * tables])
        _curves(curves, {name: found[name] for name in names})
        _histogram(scores, names[0], found[names[0]])
        _table(table, found, tables)
        figure.suptitle(f"{Path(run).name}: attributes read off the latents of {len(test):,} test rows")
        return write(figure, out)


def _curves(axis: Any, readings: Mapping[str, Reading]) -> None:
    axis.plot([0, 1], [0, 1], color="#999999", lw=1, ls="--", label="chance 0.500")
    for (name, reading), colour in zip(readings.items(), COLOURS * len(readings), strict=False):
        axis.plot(reading.roc.fpr, reading.roc.tpr, color=colour, lw=1.6, label=f"{name} {reading.roc.auc:.3f}")
    axis.set(xlabel="share of those without it", ylabel="share of those with it", title="ROC", aspect="equal", box_aspect=1)
    axis.legend(frameon=False, fontsize=8, loc="lower right")


def _histogram(axis: Any, name: str, reading: Reading) -> None:
    has, scores = reading.has, reading.scores
    edges = [float(scores.min()) + (float(scores.max()) - float(scores.min())) * i / BINS for i in range(BINS + 1)]
    for some, colour, word in ((~has, COLOURS[6], "without"), (has, COLOURS[0], "with")):
        axis.hist(scores[some].numpy(), bins=edges, color=colour, alpha=0.6, density=True, label=f"{word}, {int(some.sum()):,}")
    axis.axvline(reading.vector.threshold, color="#444444", lw=1, ls="--", label=f"threshold: {reading.accuracy:.1%} right")
    axis.set(xlabel="product with its vector", ylabel="density", title=name, box_aspect=1)
    axis.set_ylim(top=1.3 * axis.get_ylim()[1])  # room for the legend
    axis.legend(frameon=False, fontsize=8, loc="upper left")


def _table(axis: Any, readings: Mapping[str, Reading], tables: int) -> None:
    """Name and three areas a line, best first."""
    axis.axis("off")
    axis.set_title("area under the curve")
    ordered = sorted(readings.items(), key=lambda item: -item[1].roc.auc)
    each = -(-len(ordered) // tables)
    for t in range(tables):
        lines = [(name, r.roc.auc, r.pixels, r.control) for name, r in ordered[t * each : (t + 1) * each]]
        _block(axis, lines, left=t / tables, width=1 / tables, step=1 / (max(each, 12) + 2))


def _block(axis: Any, lines: Sequence[tuple[str, float, float, float]], left: float, width: float, step: float) -> None:
    ends = [left + width * share for share in (0.6, 0.76, 0.92)]
    for at, head in zip(ends, HEADS, strict=True):
        axis.text(at, 1 - step / 2, head, fontsize=8, ha="right", va="top", color="#666666")
    for i, (name, *areas) in enumerate(lines):
        y = 1 - (i + 2) * step
        axis.text(left, y, name, fontsize=8)
        for at, area in zip(ends, areas, strict=True):
            axis.text(at, y, f"{area:.3f}", fontsize=8, ha="right")
