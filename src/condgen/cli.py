"""The command line. Nothing heavy is imported before it is needed: `condgen --help` loads no tensors.

Exit codes: 0 done; 1 an unexpected error; 2 something given cannot be used; 3 the training diverged; 130, 143 stopped by
Ctrl-C, by SIGTERM, after saving.
"""

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from condgen.errors import BadInput, refuse_option, require_whole, unknown

EPILOG = "Each verb has its own --help. With --json, one JSON object goes to standard output; all else goes to standard error."


class Parser(argparse.ArgumentParser):
    """Errors are BadInput, and an unknown option names the nearest valid one."""

    def error(self, message: str) -> NoReturn:
        raise BadInput(f"{message}\n{self.format_usage().strip()}")

    def parse_all(self, words: Sequence[str]) -> argparse.Namespace:
        known, rest = self.parse_known_intermixed_args(words)  # a RUN may follow an option
        if rest:
            refuse_option(rest[0], [o for a in self._actions for o in a.option_strings])
        return known


def main(words: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    words = list(sys.argv[1:] if words is None else words)
    logging.basicConfig(level=logging.INFO if speaks() else logging.ERROR, format="%(message)s", stream=sys.stderr, force=True)
    for noisy in ("lightning_fabric", "lightning_fabric.utilities.rank_zero", "httpx", "httpcore", "urllib3", "PIL", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        return dispatch(words)
    except BadInput as error:
        print(f"condgen: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        return 0
    except KeyboardInterrupt:
        return 130
    except RuntimeError as error:
        if type(error).__name__ != "Diverged":
            raise
        print(f"condgen: stopped: {error}", file=sys.stderr)
        return 3


def dispatch(words: Sequence[str]) -> int:
    top = Parser(prog="condgen", description="Conditional generation: say what is wanted, and a trained model draws it.", epilog=EPILOG)
    top.add_argument("--version", action="store_true", help="print the version")
    top.add_argument(
        "verb", nargs="?", metavar="VERB", help="one of: " + "; ".join(f"{name} ({about})" for name, (about, _) in VERBS.items())
    )
    cut = next((i for i, w in enumerate(words) if not w.startswith("-")), len(words))
    given = top.parse_all(words[: cut + 1])
    if given.version:
        from condgen import __version__

        print(__version__)
        return 0
    if given.verb is None:
        top.print_help()
        return 2
    if given.verb not in VERBS:
        raise unknown("verb", given.verb, VERBS)
    return VERBS[given.verb][1](words[cut + 1 :])


def verb_parser(name: str) -> Parser:
    parser = Parser(prog=f"condgen {name}", description=VERBS[name][0])
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    return parser


def speaks() -> bool:
    """Of the processes that torchrun starts, the first one."""
    return os.environ.get("RANK", "0") == "0"


def answer(as_json: bool, value: Any, text: str) -> None:
    """The command's answer, for a program or for a person."""
    if speaks():
        print(json.dumps(value, default=str) if as_json else text)


# --- train ----------------------------------------------------------------------------------------------------------------


def train(words: Sequence[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(TRAIN_HELP)
        return 0 if words else 2
    from condgen import api
    from condgen.edits.progress import Stop
    from condgen.options import read_run

    run, flags = read_run(words)
    out = Path(flags.out or api.RUNS / run.name)
    stop = Stop()
    with stop:
        last = follow(api.train(run, out), run.steps, stop, f"{run.name or run.model} -> {out}", quiet=flags.json)
    done = {
        "out": str(out),
        "steps": last.step if last else api.load(out).facts.get("step", run.steps),
        "seconds": round(last.seconds, 1) if last else 0.0,
        "stopped_by": stop.name,
    }
    if last:
        done |= {"losses": {k: float(v) for k, v in last.losses.items()}, "images_per_second": round(last.images_per_second, 1)}
    state = f"stopped by {stop.name} and saved" if stop.name else "trained"
    told = f"{state}: {done['steps']} of {run.steps} steps in {done['seconds']} s" if last else f"trained already: {done['steps']} steps"
    answer(flags.json, done, f"{told}; the run lies in {out}")
    return 128 + stop.number if stop.number else 0


TRAIN_HELP = """usage: condgen train PRESET [--out RUN] [--steps N] [--seed S] [overrides]
       condgen train MODEL --data PATH [--size PX] [--skip-bad] [--out RUN] [overrides]

Train a preset, or any model on your own pictures. The same command again resumes where it stopped.
`condgen train PRESET --help` lists every override; `condgen list presets` and `condgen list models` name what there is."""


def follow(steps: Any, total: int, stop: Any, title: str, quiet: bool) -> Any:
    """Drive the iterator under a progress bar on standard error; returns the last step."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}")]
    shown, last = not quiet and sys.stderr.isatty(), None
    logging.getLogger("condgen").info("%s", title)
    with Progress(*columns, TimeElapsedColumn(), TimeRemainingColumn(), console=Console(stderr=True), disable=not shown) as bar:
        task = bar.add_task("training", total=total, rate="")
        for last in steps:
            if last.step % 10 == 0 or last.step == total:
                bar.update(task, completed=last.step, rate=f"{last.images_per_second:.0f} samples/s {losses_line(last.losses)}")
            if not shown and (last.step % max(1, total // 20) == 0):
                logging.getLogger("condgen").info(
                    "step %d of %d, %.0f samples/s, %s", last.step, total, last.images_per_second, losses_line(last.losses)
                )
            if stop.number:
                break
    steps.close()  # saves
    return last


def losses_line(losses: Any) -> str:
    return " ".join(f"{k} {float(v):.3g}" for k, v in losses.items())


# --- what is done with a trained model ------------------------------------------------------------------------------------


def sample(words: Sequence[str]) -> int:
    parser = verb_parser("sample")
    parser.add_argument("run", help="a run, a saved model, or a preset trained under runs/")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="what is asked; may be given several times")
    parser.add_argument("-n", type=int, default=64, help="how many (default: 64)")
    parser.add_argument("--seed", type=int, default=None, help="the same seed gives the same samples")
    parser.add_argument("--psi", type=float, help="of a model with styles: truncation, 1 for none, 0.7 for safer samples, 0 for the mean")
    parser.add_argument("--psi-layers", type=int, metavar="N", help="with --psi: of the first N layers alone (default: all)")
    kinds = ".npz (x and one array per condition; one named x is condition_x; of models with styles also latents z) or .png (a grid)"
    parser.add_argument("--out", type=Path, default=None, help=f"{kinds}; default: RUN/samples/samples.png, .npz for points")
    given = parser.parse_all(words)
    from condgen import api, drawing

    model = api.load(given.run)
    if given.psi is not None:
        from condgen.editing.views import truncate_by

        truncate_by(model, given.psi, given.psi_layers)
    elif given.psi_layers is not None:
        raise BadInput("--psi-layers says where --psi holds: give --psi too, such as --psi 0.7")
    out = given.out or api.home(given.run) / "samples" / ("samples.png" if len(model.shape) == 3 else "samples.npz")
    drawing.check_place(model, given.n, out)
    drawn = drawing.draw(model, drawing.read_words(given.set, model.schema), given.n, given.seed)
    drawing.write(drawn, out)
    text = f"{len(drawn.x)} samples of {given.run} written to {out}"
    told = {"out": str(out), "n": len(drawn.x), "asked": given.set, "seed": given.seed}
    told |= {k: v for k, v in (("psi", given.psi), ("psi_layers", given.psi_layers)) if v is not None}
    answer(given.json, told, text)
    return 0


def evaluate(words: Sequence[str]) -> int:
    parser = verb_parser("evaluate")
    parser.add_argument("run", help="a run, or a preset trained under runs/")
    parser.add_argument("--metrics", default="", help="names, separated by commas; default: all that apply")
    parser.add_argument("-n", type=int, default=None, help="samples to draw")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--results", type=Path, default=None, help="also write PRESET.json into this folder")
    given = parser.parse_all(words)
    from condgen import api
    from condgen.evaluation.report import table

    require_whole("--seed", given.seed, 0)
    metrics = tuple(m.strip() for m in given.metrics.split(",") if m.strip())
    result = api.evaluate(given.run, metrics, given.n, given.seed)
    if given.results:
        given.results.mkdir(parents=True, exist_ok=True)
        (given.results / f"{result['preset']}.json").write_text(json.dumps(result, indent=1) + "\n")
    answer(given.json, result, table(result) + f"\nreport: {api.home(given.run) / 'report.html'}")
    return 0


def compare(words: Sequence[str]) -> int:
    parser = verb_parser("compare")
    for place in ("first", "second"):
        parser.add_argument(place, metavar="RUN", help="a run that was evaluated, a preset trained under runs/, or a file with a result")
    parser.add_argument("--metrics", default="", help="names, separated by commas; exit 2 if one cannot be compared; default: all")
    given = parser.parse_all(words)
    from condgen import api
    from condgen.evaluation.compare import compare as side_by_side
    from condgen.evaluation.compare import text

    metrics = tuple(m.strip() for m in given.metrics.split(",") if m.strip())
    found = side_by_side(api.home(given.first), api.home(given.second), metrics)
    reasons = {*found.refused.values()}
    told = text(found) if found.rows or len(reasons) != 1 or len(found.refused) == 1 else f"nothing can be compared: {reasons.pop()}"
    answer(given.json, {"rows": [row._asdict() for row in found.rows], "refused": found.refused}, told)
    return 2 if not found.rows or (metrics and found.refused) else 0


def describe(words: Sequence[str]) -> int:
    parser = verb_parser("describe")
    parser.add_argument("name", help="a run, a saved model, a preset or a model")
    given = parser.parse_all(words)
    from condgen import api, drawing

    found = api.describe(given.name)
    answer(given.json, found, drawing.describe_text(found))
    return 0


def figure(words: Sequence[str]) -> int:
    from condgen import figures

    parser = verb_parser("figure")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = "figures:\n" + "\n".join(f"  {name:12} {f.about}" for name, f in figures.FIGURES.items())
    parser.add_argument("name", metavar="NAME", help="one of the figures below")
    parser.add_argument("runs", nargs="*", metavar="RUN", help="runs, or presets trained under runs/; for likelihood also result files")
    parser.add_argument("--out", type=Path, required=True, help="a .png")
    parser.add_argument(
        "--set", action="append", dest="asked", metavar="NAME=VALUE", help="jitter, named, styles and the like: what is asked"
    )
    parser.add_argument(
        "--attribute", action="append", dest="attributes", metavar="NAME", help="shift, named, atdot, bias: which; NAME.3 is an axis"
    )
    parser.add_argument(
        "-n", type=int, help="jitter, shift: samples a row; named: of each half; neighbours: pairs; noise: draws; inference, bias: how many"
    )
    parser.add_argument("--rows", type=int, help="evolution, jitter, inference, noise, truncation: how many rows; styles: in a block")
    parser.add_argument("--columns", type=int, help="evolution: how many steps; styles: how many")
    parser.add_argument("--steps", type=int, help="shift: values from low to high")
    parser.add_argument("--sd", type=float, help="jitter: of the noise, in standard deviations of each entry")
    parser.add_argument("--amount", type=float, help="bias: how much of the vector is added")
    parser.add_argument("--psi", type=float, help="noise, styles: truncation of w (default: 1, none)")
    parser.add_argument("--layers", action="append", help="noise: a panel with noise in these, such as coarse or 0-3,5; several times")
    parser.add_argument("--metric", help="likelihood: which, such as parzen or elbo")
    parser.add_argument("--seed", type=int, help="of what is drawn by chance")
    given = vars(parser.parse_all(words))
    name, runs, out, as_json = (given.pop(k) for k in ("name", "runs", "out", "json"))
    drawn = figures.figure(name, out, *runs, **{k: v for k, v in given.items() if v is not None})
    answer(as_json, {"out": str(drawn), "figure": name}, f"figure {name} written to {drawn}")
    return 0


def edit(words: Sequence[str]) -> int:
    from condgen import edits

    return through("edit", edits.arguments, edits.edit, words)


def translate(words: Sequence[str]) -> int:
    from condgen.edits import translate as verb

    return until_stopped("translate", verb.arguments, verb.translate, words)


def stylize(words: Sequence[str]) -> int:
    from condgen.edits import stylize as verb

    return until_stopped("stylize", verb.arguments, verb.stylize, words)


def until_stopped(name: str, arguments: Callable[[Parser], None], work: Callable[..., Any], words: Sequence[str]) -> int:
    """As `through`, of work that takes a while: the function asks `stopped()` between its steps, and the same command goes on."""
    from functools import partial

    from condgen.edits.progress import Stop

    with Stop() as stop:
        code = through(name, arguments, partial(work, stopped=lambda: stop.number > 0), words)
    return 128 + stop.number if stop.number else code


def through(name: str, arguments: Callable[[Parser], None], work: Callable[..., Any], words: Sequence[str]) -> int:
    """A verb that states its own arguments, of which each is one of the function's, and answers with words and numbers."""
    parser = verb_parser(name)
    arguments(parser)
    given = vars(parser.parse_all(words))
    as_json = given.pop("json")
    done = work(**{k: v for k, v in given.items() if v is not None})
    answer(as_json, done.told, done.said)
    return 0


# --- looking around -------------------------------------------------------------------------------------------------------


def data(words: Sequence[str]) -> int:
    parser = verb_parser("data")
    parser.add_argument("action", choices=["check"], help="check: load exactly as training does, and report every problem with a remedy")
    parser.add_argument("path", help="a folder, a zip, an .npz, or a known set")
    parser.add_argument("--size", default=None, help="side of the pictures in px, as for training")
    given = parser.parse_all(words)
    from condgen.data.check import check
    from condgen.options import pixels

    report = check(given.path, size=pixels(given.size))
    answer(given.json, report.to_json(), report.to_text())
    return 0 if report.ok else 2


def listing(words: Sequence[str]) -> int:
    parser = verb_parser("list")
    parser.add_argument("kind", choices=["models", "presets", "data", "metrics"])
    given = parser.parse_all(words)
    rows = _rows(given.kind)
    width = max((len(k) for k in rows), default=0)
    answer(given.json, rows, "\n".join(f"{k:{width}}  {v}" for k, v in rows.items()))
    return 0


def _rows(kind: str) -> dict[str, str]:
    if kind == "data":
        from condgen.data import available

        return available()
    if kind == "metrics":
        from condgen.evaluation.protocols import METRICS

        return {k: (v.about if hasattr(v, "about") else "") for k, v in METRICS.items()}
    from condgen import models

    if kind == "presets":
        return {k: f"{run.model} on {run.data}, {run.steps} steps; {run.source}" for k, run in models.presets().items()}
    from importlib import import_module

    return {name: (import_module(f"condgen.models.{name}").__doc__ or "").split("\n")[0] for name in models.names()}


def doctor(words: Sequence[str]) -> int:
    given = verb_parser("doctor").parse_all(words)
    from condgen import doctor as surgery

    report = surgery.doctor()
    answer(given.json, report, surgery.text(report))
    return 0 if report.get("ok", True) else 1


VERBS = {
    "train": ("train a preset, or any model on your own data; the same command again resumes", train),
    "sample": ("draw from a trained model", sample),
    "evaluate": ("measure a trained model, beside the paper's values, real data and a control", evaluate),
    "figure": ("draw a figure of a paper: the training's evolution, shifted attributes, cost curves and more", figure),
    "edit": ("edit your own pictures: interpolate, analogy, attribute, constrain, invert, grid, mix", edit),
    "stylize": ("paint your own photo or clip in the style of other pictures", stylize),
    "translate": ("draw pictures, folders of them or clips in another domain, with a model that translates", translate),
    "compare": ("two results side by side, as far as they were measured alike", compare),
    "describe": ("print what a run, a preset or a model is and what can be asked of it", describe),
    "data": ("data check PATH: load as training does, and report every problem with a remedy", data),
    "list": ("list models, presets, data or metrics", listing),
    "doctor": ("versions, devices and known traps", doctor),
}


if __name__ == "__main__":
    sys.exit(main())
