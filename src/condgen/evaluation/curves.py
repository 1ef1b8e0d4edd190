"""Drawings for the report, as SVG whose lines and letters take the page's colour, light or dark."""

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

COLOURS = ("#2a8bb0", "#d9822b", "#4f9d5d", "#b0529b", "#8a7bd1", "#c0504d", "#7f8c8d", "#b59b2e")
"""Readable on white and on dark grey."""
INK = "#010203"
"""Drawn in this colour, then replaced by the page's own."""
STYLE: Any = {
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "font.size": 9,
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "svg.hashsalt": "condgen",  # the same drawing, the same file
}


def curves_svg(history: Mapping[str, Sequence[tuple[float, float]]]) -> str:
    """One panel for each player, its terms over steps; `history` is "PLAYER/TERM" -> (step, value) pairs."""
    players: dict[str, list[str]] = {}
    for name in history:
        players.setdefault(name.split("/")[0], []).append(name)
    with _canvas(len(players)) as (figure, axes):
        for axis, (player, names) in zip(axes, players.items(), strict=True):
            for name, colour in zip(names, COLOURS * len(names), strict=False):
                steps, values = zip(*history[name], strict=True)
                axis.plot(steps, values, color=colour, lw=1.4, label=name.split("/", 1)[1], marker="." if len(steps) == 1 else "")
            axis.set(title=player, xlabel="step")
            axis.legend(frameon=False)
        return _svg(figure)


def points_svg(drawn: Tensor, real: Tensor) -> str:
    """Points (n, d) of the model over real ones, in their first two coordinates."""
    with _canvas(1) as (figure, (axis,)):
        for points, colour, name in ((real, "#9aa1a9", "real"), (drawn, COLOURS[1], "samples")):
            axis.scatter(points[:, 0], points[:, -1 if points.shape[1] < 2 else 1], s=5, color=colour, label=name, linewidths=0)
        axis.legend(frameon=False)
        return _svg(figure)


class _canvas:
    """A figure of some panels, without the global state of pyplot."""

    def __init__(self, panels: int):
        self.panels = panels

    def __enter__(self) -> tuple[Any, list[Any]]:
        import matplotlib
        from matplotlib.figure import Figure

        self.style = matplotlib.rc_context(STYLE)
        self.style.__enter__()
        figure = Figure(figsize=(4.6 * min(self.panels, 2), 2.9 * -(-self.panels // 2)), layout="constrained")
        figure.patch.set_alpha(0)
        axes = figure.subplots(-(-self.panels // 2), min(self.panels, 2), squeeze=False).ravel()
        for axis in axes:
            axis.patch.set_alpha(0)
        for spare in axes[self.panels :]:
            spare.set_visible(False)
        return figure, list(axes[: self.panels])

    def __exit__(self, *error: Any) -> None:
        self.style.__exit__(*error)


def _svg(figure: Any) -> str:
    """The <svg> element alone, in the page's ink, with no address that a browser might ask for."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    drawing = buffer.getvalue()
    drawing = re.sub(r' xmlns(:xlink)?="[^"]*"', "", drawing[drawing.index("<svg") :])  # a page of HTML knows them
    drawing = re.sub(r"<metadata>.*?</metadata>", "", drawing, flags=re.DOTALL)
    return drawing.replace(INK, "currentColor")
