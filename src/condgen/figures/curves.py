"""Costs of the players over the steps, with the values at which D cannot tell real from fake.

For a game of log costs an undecided D, 1/2 everywhere, pays 2 ln 2 where the costs of real and fake are added, and ln 2 where they are
averaged (Gauthier 2014, which says so by `d_share`); a G that descends -log D pays ln 2. Goodfellow et al. 2014, arXiv 1406.2661,
section 4.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from condgen import api
from condgen.errors import BadInput
from condgen.evaluation.curves import COLOURS
from condgen.evaluation.report import read_history
from condgen.figures.canvas import plain, write
from condgen.model import Model
from condgen.objectives.games import Game

LN2 = math.log(2)
LINES = {LN2: "ln 2 = 0.693", 2 * LN2: "2 ln 2 = 1.386", -LN2: "−ln 2 = −0.693"}
WINDOWS = 25
"""The smoothed curve is a mean over a 25th of the run."""
RARE = 0.01
"""Raw values beyond this quantile, at either end, may leave the panel."""
MARGIN = 0.06
LOG_FROM = 30.0
"""Positive costs that span more than this factor are drawn on a logarithmic axis."""


def draw(out: Path, run: str) -> Path:
    """A panel a player: each of its terms, smoothed over its faint raw values.

    Raises:
        BadInput: where the run measured nothing.
    """
    history = read_history(api.home(run) / "metrics.jsonl")
    if not history:
        raise BadInput(f"{api.home(run)} measured no costs (metrics.jsonl): train it with --log-every above 0")
    model = api.load(run)
    players = list(dict.fromkeys(name.split("/")[0] for name in history))
    with plain(6.4 * len(players), 4.2, layout="constrained") as figure:
        for axis, player in zip(figure.subplots(1, len(players), squeeze=False)[0], players, strict=True):
            terms = {k.split("/", 1)[1]: v for k, v in history.items() if k.split("/")[0] == player}
            _panel(axis, player, terms, indifferent(model, player) if "D" in players else {})
        figure.suptitle(f"{Path(run).name}: costs over the training")
        return write(figure, out)


def _panel(axis: Any, player: str, terms: dict[str, list[tuple[float, float]]], lines: dict[float, str]) -> None:
    shown = [*lines]
    for (name, pairs), colour in zip(terms.items(), COLOURS * len(terms), strict=False):
        steps, values = np.array(pairs).T
        mean = smooth(values, len(values) // WINDOWS)
        shown += [*mean, *np.quantile(values, (RARE, 1 - RARE))]
        axis.plot(steps, values, color=colour, lw=0.8, alpha=0.3)
        axis.plot(steps, mean, color=colour, lw=1.8, label=name, marker="." if len(steps) == 1 else "")
    for value, label in lines.items():
        axis.axhline(value, color="#444444", lw=1, ls="--", label=label, zorder=0.5)
    if not lines and logarithmic([v for pairs in terms.values() for _, v in pairs]):  # the lines are read on a linear axis
        axis.set_yscale("log")
    elif (room := MARGIN * (max(shown) - min(shown))) > 0:
        axis.set_ylim(min(shown) - room, max(shown) + room)
    axis.set(title=f"player {player}", xlabel="step", ylabel="cost a sample")
    axis.legend(frameon=False, fontsize=9)


def smooth(values: np.ndarray, half: int) -> np.ndarray:
    """Mean over a window of `half` values each way, smaller at the ends. float (n,).

    >>> smooth(np.array([0.0, 3.0, 6.0]), 1)
    array([1.5, 3. , 4.5])
    """
    total = np.concatenate([[0.0], np.cumsum(values)])
    at = np.arange(len(values))
    left, right = np.maximum(at - half, 0), np.minimum(at + half + 1, len(values))
    return (total[right] - total[left]) / (right - left)


def logarithmic(values: list[float]) -> bool:
    """Whether these are all positive and span more than `LOG_FROM`."""
    return min(values) > 0 and max(values) / min(values) > LOG_FROM


def indifferent(model: Model, player: str) -> dict[float, str]:
    """Where the player's cost lies while D cannot tell, as value -> label; empty for who plays no game against D.

    D then gives real and fake one and the same logit, the one that costs it least. A model whose D pays only a share of its game's
    cost, 1/2 where real and fake are averaged, says so by `d_share`. Costs that are not declared as a game are taken for log costs.
    """
    if player not in ("D", "G"):
        return {}
    game = getattr(model, "game", None)
    d, g = at_a_loss(game) if isinstance(game, Game) else (2 * LN2, LN2)
    value = getattr(model, "d_share", 1.0) * d if player == "D" else g
    return {} if math.isnan(value) else {value: f"{in_words(value)}: D cannot tell"}


def at_a_loss(game: Game) -> tuple[float, float]:
    """Costs of D and of G while D cannot tell; G's is NaN where it depends on which of D's best logits it is."""
    logits = torch.linspace(-6, 6, 12_001, dtype=torch.float64)
    costs = game.d(logits, logits)
    best = logits[costs <= costs.min() + 1e-9]
    answers = game.g(best, best)
    settled = float(answers.max() - answers.min()) < 1e-6
    return float(costs.min()), float(answers.mean()) if settled else math.nan


def in_words(value: float) -> str:
    """A cost with its name, where it has one.

    >>> in_words(2 * LN2), in_words(0.25)
    ('2 ln 2 = 1.386', '0.250')
    """
    return next((word for v, word in LINES.items() if math.isclose(v, value, rel_tol=1e-5)), f"{value:.3f}")
