"""What `condgen train` accepts: the fields of `Run`, the model's constructor and each player's `Optimizer`, read off their signatures."""

import argparse
import contextlib
import dataclasses
import io
from collections.abc import Sequence
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from condgen import api, models
from condgen.errors import BadInput, refuse_option, unknown
from condgen.model import Optimizer, Run

FIXED = {"model", "data", "options", "optimizers", "size", "reported", "source", "name"}
"""Fields of a run that are no overrides: the target and --data decide them, or they only describe."""


def read_run(words: Sequence[str]) -> tuple[Run, argparse.Namespace]:
    """The run that these words ask for, and the flags that concern the command alone (out, json).

    The first word is a preset, or a model together with --data PATH. Raises BadInput naming the nearest valid option.
    """
    target, rest = words[0], list(words[1:])
    where = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    where.add_argument("--data")
    where.add_argument("--size", type=_pixels)
    where.add_argument("--out")
    where.add_argument("--json", action="store_true")
    try:
        flags, rest = where.parse_known_args(rest)
    except SystemExit:
        raise BadInput("--data, --size and --out each need a value") from None
    run = _start(target, flags)
    return _override(run, rest, target), flags


def _pixels(word: str) -> int:
    if not word.isdigit() or not 4 <= int(word) <= 4096:
        raise BadInput(f"--size {word!r}: a side in px, from 4 to 4096")
    return int(word)


def _start(target: str, flags: argparse.Namespace) -> Run:
    known = api.presets()
    if target in known:
        changes = {k: v for k, v in (("data", flags.data), ("size", flags.size)) if v is not None}
        return dataclasses.replace(known[target], **changes)
    if target.split(".")[0] not in models.names():
        raise unknown("preset or model", target, [*known, *models.names()])
    if flags.data is None:
        raise BadInput(
            f"{target} is a model: give it data with --data PATH, or train a preset: {', '.join(k for k in known if k.startswith(target))}"
        )
    run = api.plan(target, flags.data, flags.size)
    size = f"{run.size} px" if run.size else "the data's own size"
    options = ", ".join(f"{k} {v}" for k, v in run.options.items())
    api.log.info("chosen from the data: %s, batch %d, %d steps, %s (each can be overridden)", size, run.batch, run.steps, options)
    return run


def _override(run: Run, words: list[str], target: str) -> Run:
    parser = ArgumentParser(
        prog=f"condgen train {target}", exit_on_error=False, description="Every option shows the value that this run has."
    )
    parser.add_class_arguments(Run, None, skip=FIXED, as_group=True)
    parser.add_class_arguments(models.find(run.model), "model", skip={"shape", "schema"})
    for player in run.optimizers:
        parser.add_class_arguments(Optimizer, _group(player))
    fields = {f.name: getattr(run, f.name) for f in dataclasses.fields(Run) if f.name not in FIXED}
    parser.set_defaults({k: list(v) if isinstance(v, tuple) else v for k, v in fields.items()})
    parser.set_defaults({f"model.{k}": v for k, v in run.options.items()})
    for player in run.optimizers:
        parser.set_defaults({f"{_group(player)}.{k}": v for k, v in dataclasses.asdict(run.optimizer(player)).items()})
    if "-h" in words or "--help" in words:
        parser.print_help()
        raise SystemExit(0)
    words = [_underscored(w) for w in words]
    _refuse_unknown(parser, words)
    return _applied(run, _parsed(parser, words))


def _group(player: str) -> str:
    """One optimiser for all is `--optimizer.lr`; a player's own is `--optimizer_G.lr`."""
    return "optimizer" if player == "*" else f"optimizer_{player}"


def _underscored(word: str) -> str:
    """--save-every is --save_every."""
    name, equals, value = word.partition("=")
    return name.replace("-", "_").replace("__", "--", 1) + equals + value if word.startswith("--") else word


def _refuse_unknown(parser: ArgumentParser, words: Sequence[str]) -> None:
    valid = [o for a in parser._actions for o in a.option_strings]
    for word in words:
        if word.startswith("--") and word.split("=")[0] not in valid:
            refuse_option(word, valid)


def _parsed(parser: ArgumentParser, words: Sequence[str]) -> Namespace:
    try:
        with contextlib.redirect_stderr(io.StringIO()):
            return parser.parse_args(list(words))
    except (argparse.ArgumentError, SystemExit, TypeError, ValueError) as error:
        raise BadInput(str(error)) from None


def _applied(run: Run, given: Namespace) -> Run:
    found = given.as_dict()
    asked: dict[str, Any] = {f.name: found[f.name] for f in dataclasses.fields(Run) if f.name not in FIXED}
    for name in ("metrics", "conditions"):
        asked[name] = tuple(asked[name])
    options = _changed(run, found["model"])
    optimizers = {p: Optimizer(**{**found[_group(p)], "betas": tuple(found[_group(p)]["betas"])}) for p in run.optimizers}
    _refuse_senseless(asked)
    return dataclasses.replace(run, **asked, options=options, optimizers=optimizers)


def _changed(run: Run, given: dict[str, Any]) -> dict[str, Any]:
    """The preset's options and those that differ from the constructor's defaults: what was not asked is not written down."""
    import inspect

    defaults = {k: p.default for k, p in inspect.signature(models.find(run.model).__init__).parameters.items()}
    return {k: v for k, v in given.items() if k in run.options or v != defaults[k]}


def _refuse_senseless(asked: dict[str, Any]) -> None:
    for name in ("steps", "batch"):
        if asked[name] < 1:
            raise BadInput(f"--{name} {asked[name]}: at least 1")
    if asked["seed"] < 0:
        raise BadInput(f"--seed {asked['seed']}: at least 0")
