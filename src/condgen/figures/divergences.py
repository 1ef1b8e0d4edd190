"""What a criterion does to a fit, in one picture: a Gaussian that is too simple for its target, fitted under each divergence.

First row: an isotropic Gaussian, after Theis et al. 2015, arXiv 1511.01844, figure 1. Second: a full one from several starts,
after Bishop 2006, Pattern Recognition and Machine Learning, figure 10.3. Third: JS_pi of Creswell & Bharath 2016 over pi.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from condgen.evaluation.curves import COLOURS
from condgen.evaluation.divergences import Fit, fit, js, kl
from condgen.evaluation.mixtures import MIXTURES, Mixture, mixture
from condgen.figures.canvas import plain, write

UNEVEN = mixture([0.7, 0.3], [[-1.5, -1.0], [1.5, 1.0]], [0.5, 0.5])
TILTED = mixture([0.5, 0.5], [[-1.0, -1.0], [1.0, 1.0]], covariances=[[[0.5, -0.3], [-0.3, 0.5]]] * 2)
P_COLOUR, Q_COLOUR, PICKED_COLOUR = COLOURS[0], COLOURS[1], COLOURS[3]
JS = r"$\mathrm{JS}_\pi$"
TICKS = (0.0001, 0.01, 0.5, 0.99, 0.9999)
BANDWIDTH = 1.5
"""Of the kernel in the first row: as wide as a mode is far from the middle, where MMD is between the other two."""
SHARES = (0.05, 0.1, 0.2, 0.9)
"""The pi of the curves: two on either side of the jump."""
COVERING, PICKING = [(-0.8, 1.9)], [(-2.0, 0.5)]
"""Where the descents start that follow the two local optima of mixture A over pi."""


def draw(out: Path) -> Path:
    """Nine panels, from densities that are known: no run is read. Takes ten seconds.

    Raises:
        BadInput: for a place that cannot be written.
    """
    with plain(13, 11.5, layout="constrained") as figure:
        axes = figure.subplots(3, 3)
        draw_isotropic(axes[0])
        draw_starts(axes[1])
        draw_shares(*axes[2])
        return write(figure, out)


def draw_isotropic(axes: Sequence[Any]) -> None:
    """One target, three criteria: KL covers it, MMD stands between, JSD picks the heavier mode."""
    found = {
        "KL[P‖Q] = {:.3f} nats": fit(UNEVEN, "kl"),
        "MMD² = {:.3f}": fit(UNEVEN, "mmd", h=BANDWIDTH),
        "JSD = {:.3f} nats": fit(UNEVEN, "js"),
    }
    for axis, (name, one) in zip(axes, found.items(), strict=True):
        _plane(axis, UNEVEN, one, "Isotropic Q, min " + name.format(one.value))
    axes[1].set_title(f"{axes[1].get_title()}, h = {BANDWIDTH}")


def draw_starts(axes: Sequence[Any]) -> None:
    """KL[P||Q] has one optimum; KL[Q||P] ends in the mode it started by."""
    _plane(axes[0], TILTED, found := fit(TILTED, "kl", full=True), f"Full Q, min KL[P‖Q] = {found.value:.3f} nats")
    for axis, mean in zip(axes[1:], TILTED.means.tolist(), strict=True):
        start = tuple(0.5 * v for v in mean)
        found = fit(TILTED, "reverse_kl", starts=[(start, 0.5)], full=True)
        _plane(axis, TILTED, found, f"Full Q, min KL[Q‖P] = {found.value:.3f} nats")
        axis.plot(*start, "x", color="black", ms=7, label="start of the descent")
        axis.legend(loc="upper left", frameon=False)


def _plane(axis: Any, p: Mixture, found: Fit, title: str, reach: float = 3.6) -> None:
    """P as filled contours, Q as the ellipses of one and two standard deviations."""
    line = torch.linspace(-reach, reach, 161, dtype=torch.float64)
    at = torch.cartesian_prod(line, line)
    density = p.log_prob(at).exp().reshape(161, 161).T  # the first coordinate runs along x
    levels = [float(density.max()) * share for share in (0.03, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1)]
    axis.contourf(line, line, density, levels=levels, cmap="Blues")
    for scale in (1, 2):
        x, y = _ellipse(found.q, scale)
        axis.plot(x, y, color=Q_COLOUR, lw=2, ls="-" if scale == 1 else "--")
    axis.plot(*found.mean, "+", color=Q_COLOUR, ms=9, mew=2)
    axis.set(title=title, xlabel="x₁", ylabel="x₂", aspect="equal", xlim=(-reach, reach), ylim=(-reach, reach))
    axis.text(0.98, 0.03, "blue: P   orange: Q at 1 σ (solid), 2 σ (dashed)", transform=axis.transAxes, ha="right", fontsize=8)


def _ellipse(q: Mixture, scale: float) -> Tensor:
    angle = torch.linspace(0, 2 * math.pi, 121, dtype=torch.float64)
    circle = torch.stack([angle.cos(), angle.sin()])
    return q.means[0][:, None] + scale * q.factors[0] @ circle


def draw_shares(fits: Any, widths: Any, limits: Any) -> None:
    """JS_pi over pi: fits of mixture A, their widths with the jump, and the two limits on mixture B."""
    _fits(fits, MIXTURES["A"])
    _widths(widths, MIXTURES["A"])
    _limits(limits, MIXTURES["B"], fit(MIXTURES["B"], "kl").q)


def _fits(axis: Any, p: Mixture) -> None:
    x = torch.linspace(-6, 5, 400, dtype=torch.float64)
    axis.fill_between(x, p.log_prob(x).exp(), color=P_COLOUR, alpha=0.3, lw=0, label="P, mixture A")
    for i, pi in enumerate(SHARES):
        found = fit(p, "js", pi=pi)
        how = {"color": "black", "ls": ":", "lw": 1.6} if i % 2 else {"color": Q_COLOUR if found.sigma > 1 else PICKED_COLOUR, "lw": 3}
        axis.plot(x, found.q.log_prob(x).exp(), label=f"Q at π = {pi}: μ = {found.mean:.2f}, σ = {found.sigma:.2f}", **how)
    axis.set(title=f"Q = N(μ, σ²) of least {JS}[P‖Q]", xlabel="x", ylabel="density", ylim=(0, 1.2))
    axis.legend(frameon=False, fontsize=8, loc="upper right")


def _widths(axis: Any, p: Mixture) -> None:
    jump = find_jump(p)
    below, above = torch.logspace(-2, math.log10(jump - 1e-3), 10).tolist(), torch.linspace(jump + 1e-3, 0.99, 20).tolist()
    shares = [*below, *above]
    covers, picks = ([fit(p, "js", pi=pi, starts=starts) for pi in shares] for starts in (COVERING, PICKING))
    for found, name, colour in ((covers, "covers both modes", Q_COLOUR), (picks, "picks the heavier", PICKED_COLOUR)):
        kept = sum(abs(one.sigma - found[0].sigma) < 0.5 for one in found)  # beyond, this optimum is none any more
        axis.plot(shares[:kept], [one.sigma for one in found[:kept]], color=colour, lw=4, alpha=0.5, label=f"local optimum that {name}")
    best = [min(pair, key=lambda one: one.value).sigma for pair in zip(covers, picks, strict=True)]
    axis.plot(below, best[: len(below)], color="black", lw=1.6, label="global optimum")
    axis.plot(above, best[len(below) :], color="black", lw=1.6)
    axis.axvline(jump, color="black", lw=0.8, ls=":")
    axis.set(title=f"Its σ jumps at π = {jump:.3f}", xlabel="π", ylabel="σ of the fit", xlim=(0, 1), ylim=(0, 2.9))
    axis.legend(frameon=False, fontsize=8, loc="upper right")


def find_jump(p: Mixture, low: float = 0.05, high: float = 0.5) -> float:
    """The pi at which covering mixture A and picking its heavier mode cost the same, by bisection to 1e-4."""
    while high - low > 1e-4:
        middle = (low + high) / 2
        covers = fit(p, "js", pi=middle, starts=COVERING).value < fit(p, "js", pi=middle, starts=PICKING).value
        low, high = (middle, high) if covers else (low, middle)
    return (low + high) / 2


def _limits(axis: Any, p: Mixture, q: Mixture) -> None:
    shares = torch.sigmoid(torch.linspace(-11.5, 11.5, 93, dtype=torch.float64)).tolist()
    values = [float(js(p, q, pi)) for pi in shares]
    by_p, by_q = ([v / (pi if of_p else 1 - pi) for v, pi in zip(values, shares, strict=True)] for of_p in (True, False))
    for ratio, name, colour in ((by_p, f"{JS} / π", P_COLOUR), (by_q, f"{JS} / (1 − π)", PICKED_COLOUR)):
        axis.plot(shares, ratio, color=colour, lw=2, label=name)
    for limit, name, colour in ((float(kl(p, q)), "KL[P‖Q]", P_COLOUR), (float(kl(q, p)), "KL[Q‖P]", PICKED_COLOUR)):
        axis.axhline(limit, color=colour, lw=1, ls="--", label=f"{name} = {limit:.3f}")
    axis.set_xscale("logit")
    axis.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    axis.set_xticks([], minor=True)
    axis.set(title=f"Both limits of {JS}", xlabel="π (logit scale); P: mixture B, Q: its moment match", ylabel="nats", ylim=(0, 0.55))
    axis.legend(frameon=False, fontsize=8, loc="upper left", ncols=2)
