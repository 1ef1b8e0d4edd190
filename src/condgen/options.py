"""What `condgen train` accepts: the fields of `Run`, the model's constructor and each player's `Optimizer`, read off their signatures."""

import argparse
import contextlib
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from condgen import api, models
from condgen.errors import BadInput, refuse_option, require_whole, unknown
from condgen.model import Optimizer, Run

FIXED = {"model", "data", "options", "optimizers", "size", "reported", "source", "name"}
"""Fields of a run that are no overrides: the target and --data decide them, or they only describe."""
LISTS = ("--metrics", "--conditions")
TRUTH = {"true": True, "false": False}


def read_run(words: Sequence[str]) -> tuple[Run, argparse.Namespace]:
    """The run that these words ask for, and the flags that concern the command alone (out, json).

    The first word that is no option is a preset, or a model together with --data PATH. Raises BadInput naming the nearest valid option.
    """
    where = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name in ("--data", "--size", "--out"):
        where.add_argument(name)
    where.add_argument("--skip_bad", default="false")
    where.add_argument("--json", action="store_true")
    try:
        flags, rest = where.parse_known_args(_spelled(words))
    except argparse.ArgumentError:
        raise BadInput("--data, --size and --out each need a value") from None
    if flags.skip_bad.lower() not in TRUTH:
        raise unknown("value of --skip-bad", flags.skip_bad, TRUTH)
    flags.size, flags.skip_bad = pixels(flags.size), TRUTH[flags.skip_bad.lower()]
    target, rest = _target(rest)
    return _override(_start(target, flags), rest, target), flags


def _spelled(words: Sequence[str]) -> list[str]:
    """The words as the parsers read them: --save-every is --save_every, a bare --skip-bad is --skip_bad=true, `a,b` is a list."""
    spelled: list[str] = []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        name, equals, value = _underscored(word).partition("=")
        if spelled and spelled[-1] in LISTS:
            spelled.append(_listed(word))
        elif name in LISTS and equals:
            spelled.append(f"{name}={_listed(value)}")
        else:
            bare = name == "--skip_bad" and not equals and following.lower() not in TRUTH
            spelled.append(f"{name}=true" if bare else name + equals + value)
    return spelled


def _listed(value: str) -> str:
    names = [part.strip() for part in value.split(",") if part.strip()]
    return value if value.startswith(("[", "(")) else json.dumps(names, ensure_ascii=False)


def _target(words: Sequence[str]) -> tuple[str, list[str]]:
    """The first word that is neither an option nor an option's value, and all others."""
    is_value = False
    for i, word in enumerate(words):
        if not is_value and not word.startswith("-"):
            return word, [*words[:i], *words[i + 1 :]]
        is_value = not is_value and "=" not in word and word not in ("-h", "--help")
    raise BadInput("train what? Name a preset, or a model with --data PATH; `condgen list presets` names what there is")


def pixels(word: str | None) -> int | None:
    """The side that --size asks for, where it is given. Raises BadInput."""
    if word is not None and not (word.isdecimal() and 4 <= int(word) <= 4096):
        raise BadInput(f"--size {word!r}: a side in px, from 4 to 4096")
    return word if word is None else int(word)


def _start(target: str, flags: argparse.Namespace) -> Run:
    known = api.presets()
    if target in known:
        run = dataclasses.replace(known[target], skip_bad=flags.skip_bad, size=flags.size or known[target].size)
        return run if flags.data in (None, run.data) else _on_other_data(run, flags.data)
    if target.split(".")[0] not in models.names():
        raise unknown("preset or model", target, [*known, *models.names()])
    if flags.data is None:
        raise BadInput(
            f"{target} is a model: give it data with --data PATH, or train a preset: {', '.join(k for k in known if k.startswith(target))}"
        )
    run = api.plan(target, flags.data, flags.size, skip_bad=flags.skip_bad)
    size = f"{run.size} px" if run.size else "the data's own size"
    options = ", ".join(f"{k} {v}" for k, v in run.options.items())
    api.log.info("chosen from the data: %s, batch %d, %d steps, %s (each can be overridden)", size, run.batch, run.steps, options)
    return run


def _on_other_data(run: Run, data: str) -> Run:
    """A preset's settings on data that are not its own: what the paper reports is no longer beside it."""
    name = f"{run.model.split('.')[0]}-{Path(data).stem}"
    return dataclasses.replace(run, data=data, reported={}, source="", name=name)


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
    """What `Run` itself allows and a training cannot use."""
    require_whole("--steps", asked["steps"], 1)
    if asked["metrics"]:
        from condgen.evaluation.protocols import METRICS

        for name in asked["metrics"]:
            if name not in METRICS:
                raise unknown("metric", name, METRICS)
