"""The figures of the papers and lectures, each one command: `condgen figure NAME RUN --out FILE.png`.

A figure is a module with `draw(out, *runs, ...)`, found by the table below; its keyword arguments are its options, stated once.
Nothing heavy is imported before a figure is drawn.
"""

import inspect
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from condgen.errors import BadInput, unknown


class Figure(NamedTuple):
    """What it shows in a line, the module that draws it, and how many runs it may take."""

    about: str
    module: str
    runs: range


ONE = range(1, 2)
FIGURES: dict[str, Figure] = {
    "atdot": Figure("ROC curves of attributes read off the latents, one histogram, and the table of all", "condgen.figures.atdot", ONE),
    "bias": Figure("an attribute given with and without what goes with it in the data, beside their table", "condgen.figures.bias", ONE),
    "curves": Figure("costs of the players over the steps, with the lines where D cannot tell", "condgen.figures.curves", ONE),
    "divergences": Figure("what a Gaussian becomes that is fitted by KL, JS or MMD", "condgen.figures.divergences", range(1)),
    "evolution": Figure("the same latents and conditions over the training", "condgen.figures.evolution", ONE),
    "identity": Figure("test pictures edited to each class or attribute, black where it holds", "condgen.figures.identity", ONE),
    "inference": Figure("data, reconstructions, samples, codes and prior, or rows of pictures", "condgen.figures.inference", range(1, 3)),
    "jitter": Figure("conditions under noise, each row beside its nearest training picture", "condgen.figures.jitter", ONE),
    "likelihood": Figure("bars of a likelihood beside the paper's, real data's and a control's", "condgen.figures.likelihood", range(1, 9)),
    "named": Figure("each attribute asked low and high, or a row a class, the same latents", "condgen.figures.named", ONE),
    "neighbours": Figure("samples beside their nearest training pictures", "condgen.figures.neighbours", ONE),
    "noise": Figure("one picture with noise in no layer, all, fine and coarse ones, and where it varies", "condgen.figures.noise", ONE),
    "shift": Figure("one attribute from low to high, all else fixed", "condgen.figures.shift", ONE),
    "styles": Figure("samples with coarse, middle and fine layers of others", "condgen.figures.styles", ONE),
    "truncation": Figure("samples drawn to the mean of w, and to its other side", "condgen.figures.truncation", ONE),
}
FLAGS = {"asked": "--set", "attributes": "--attribute", "n": "-n"}
"""Options whose word on the command line is not --NAME."""


def figure(name: str, out: str | Path, *runs: str | Path, **options: Any) -> Path:
    """Draw one of `FIGURES` to a PNG.

    Args:
        name: a key of `FIGURES`.
        out: the file, ending in .png; its folder is made.
        runs: folders of runs or presets trained under runs/; `likelihood` takes result files as well.
        options: the keyword arguments of the figure's `draw`.

    Returns:
        the file.

    Raises:
        BadInput: for an unknown figure or option, a wrong number of runs, or whatever the figure cannot be drawn of.
    """
    if name not in FIGURES:
        raise unknown("figure", name, FIGURES)
    out = Path(out)
    if out.suffix.lower() != ".png":
        raise BadInput(f"{out}: a figure is written as .png")
    _check_runs(name, runs)
    draw = import_module(FIGURES[name].module).draw
    _check_options(name, draw, options)
    return draw(out, *map(str, runs), **options)


def _check_runs(name: str, runs: tuple[str | Path, ...]) -> None:
    allowed = FIGURES[name].runs
    if len(runs) not in allowed:
        some = f"{allowed[0]} to {allowed[-1]} runs" if len(allowed) > 1 else ["no run", "one run"][allowed[0]]
        raise BadInput(f"figure {name} is drawn of {some}, {len(runs)} given" + (f": {', '.join(map(str, runs))}" if runs else ""))


def _check_options(name: str, draw: Callable[..., Path], options: Mapping[str, Any]) -> None:
    known = [k for k, p in inspect.signature(draw).parameters.items() if p.default is not p.empty]
    for option in options:
        if option not in known:
            flags = ", ".join(flag(k) for k in known) or "none"
            raise BadInput(f"figure {name} has no option {flag(option)}; it has: {flags}")


def flag(option: str) -> str:
    """An option as the command line writes it."""
    return FLAGS.get(option, f"--{option}")
