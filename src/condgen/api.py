"""The library in a handful of calls: `presets`, `train`, `load`, `evaluate`; what the command line does, it does with these."""

import contextlib
import inspect
import json
import logging
import math
import os
from collections.abc import Generator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from condgen import data, models, pretrained
from condgen.conditions import Label, Schema, schema_to_json
from condgen.errors import BadInput, unknown
from condgen.model import Model, Run, capabilities

if TYPE_CHECKING:  # the loop brings Lightning Fabric, which takes a second that sampling need not pay
    from condgen.data.store import Dataset
    from condgen.training.loop import Step
    from condgen.training.state import State

log = logging.getLogger("condgen")
RUNS = Path("runs")
LARGEST_DEFAULT_PX = 64


def presets() -> dict[str, Run]:
    """Every preset, by name."""
    return models.presets()


def preset(name: str) -> Run:
    """A preset. Raises BadInput naming the nearest one."""
    found = presets()
    if name not in found:
        raise unknown("preset", name, found)
    return found[name]


def plan(model: str, source: str | os.PathLike[str], size: int | None = None, skip_bad: bool = False) -> Run:
    """A run of any model on a person's own data, with defaults chosen from that data and from the model's first preset.

    Args:
        model: such as "cgan" or "cgan.CGAN".
        source: a known set, or the path of a folder, a zip or an .npz.
        size: side of the pictures in px; by default the data's own where its pictures are equal and at most 64 px.
        skip_bad: leave out, counted, the pictures that cannot be read, instead of refusing.

    Raises:
        BadInput: for an unknown model, or data that cannot be used.
    """
    source = os.fspath(source)
    cls = models.find(model)
    size = size or _size_for(source)
    loaded = data.load(source, size=size, skip_bad=skip_bad)
    likeness = _nearest_preset(models.path(cls), math.prod(loaded.shape)) or Run(models.path(cls), source)
    batch = min(likeness.batch, 2 ** int(math.log2(max(len(loaded), 1))))
    steps = 3000 if len(loaded) < 5000 else 8000
    return Run(
        model=models.path(cls),
        data=source,
        size=size,
        options=likeness.options | _options_for(cls, loaded, steps),
        optimizers=likeness.optimizers,
        batch=batch,
        steps=steps,
        half_life_images=min(20_000.0, batch * steps / 20) if likeness.half_life_images else 0.0,
        name=f"{model.split('.')[0]}-{Path(source).stem}",
        source="defaults chosen from the data",
        skip_bad=skip_bad,
    )


SAMPLE_NUMBERS = {"mixture1d": 1, "mixture2d": 2, "digits": 64, "mnist": 784, "lfwcrop32": 3072, "omniglot": 11025, "scenes-domains": 12288}
"""Numbers in a sample of the sets that presets train on."""


def _nearest_preset(model: str, numbers: int) -> Run | None:
    """The model's preset on samples of the most similar size."""
    own = [run for run in presets().values() if run.model == model and run.data in SAMPLE_NUMBERS]
    return min(own, key=lambda run: abs(math.log(SAMPLE_NUMBERS[run.data] / numbers)), default=None)


def _options_for(cls: type[Model], loaded: "Dataset", steps: int) -> dict[str, Any]:
    """Of the options that the constructor has: a narrow net for few samples; a Bernoulli likelihood for black and white pictures alone;
    as many labels as there are; half of the steps for a model that comes first."""
    options: dict[str, Any] = {"width": 16 if len(loaded) < 500 else 32}
    x = loaded.batch(torch.arange(min(200, len(loaded)))).x
    binary = x.dim() == 4 and x.shape[1] == 1 and float((x.abs() > 0.8).float().mean()) > 0.6
    options["likelihood"] = "bernoulli" if binary else "normal"
    options |= {"labelled": _labelled(loaded), "vae_steps": steps // 2}
    return {k: v for k, v in options.items() if k in inspect.signature(cls.__init__).parameters}


def _labelled(loaded: "Dataset", most: int = 100) -> int:
    """How many samples a semi-supervised model may read the label of: as many of each class, at most half of the rarest."""
    label = next((name for name, c in loaded.schema.items() if isinstance(c, Label)), None)
    if label is None:
        return most
    counts = loaded.values()[label][:10_000].bincount()
    return len(counts) * max(1, min(most // len(counts), int(counts.min()) // 2))


def _size_for(source: str) -> int | None:
    """None where the data's own size can be trained on as it is, else a side that suits most of its pictures."""
    if source in data.available():
        return None
    from condgen.data.check import check

    found = {k: n for k, n in check(source).sizes.items() if "x" in k}  # points have none
    sizes = [(int(w), int(h), n) for (w, h), n in ((k.split("x"), n) for k, n in found.items())]
    if not sizes or (len(sizes) == 1 and max(sizes[0][:2]) <= LARGEST_DEFAULT_PX and sizes[0][0] % 4 == sizes[0][1] % 4 == 0):
        return None
    typical = sorted(min(w, h) for w, h, n in sizes for _ in range(n))[sum(n for *_, n in sizes) // 2]
    return min(LARGEST_DEFAULT_PX, max(8, typical // 8 * 8))


def dataset(run: Run, split: str | None = None) -> "Dataset":
    """The run's data; `split` instead of the one it trains on."""
    return data.load(run.data, split=split or run.split, size=run.size, skip_bad=run.skip_bad)


def build(run: Run, loaded: "Dataset") -> Model:
    """The run's model with fresh weights, a function of run.seed. Raises BadInput for an unknown model, option or condition."""
    cls = models.find(run.model)
    valid = [p for p in inspect.signature(cls.__init__).parameters if p not in ("self", "shape", "schema")]
    for name in run.options:
        if name not in valid:
            raise unknown(f"option of {run.model}", name, valid)
    torch.manual_seed(run.seed)
    options = {k: tuple(v) if isinstance(v, list) else v for k, v in run.options.items()}
    return cls(shape=loaded.shape, schema=chosen(loaded.schema, run.conditions), **options)


def chosen(schema: Schema, names: tuple[str, ...]) -> Schema:
    """Part of a schema; all of it for (), none of it for ("none",). Raises BadInput for a name it has not."""
    if names == ("none",) and "none" not in schema:
        return {}
    for name in names:
        if name not in schema:
            raise unknown("condition of the data", name, schema)
    return {k: schema[k] for k in names} if names else schema


def train(run: Run | str, out: str | os.PathLike[str] | None = None, model: Model | None = None) -> Generator["Step", None, None]:
    """Train a run or a preset; an iterator of steps, so that the caller decides what happens between them.

    Args:
        run: a Run, or the name of a preset.
        out: the run's folder, where an earlier start of the same run is taken up again; None keeps nothing.
        model: what to begin with instead of fresh weights: of the run's class and options, such as one that was grown from another.

    Yields:
        a Step after each step; `step.state.model` is the model. Leaving the loop early saves first. After the last step, what
        leaves the run (config.json, model.safetensors, README.md) lies in `out`.

    Raises:
        BadInput: before the first step, for anything that cannot be trained.
        Diverged: at the first value that is not finite.
    """
    from condgen.training import loop

    run = preset(run) if isinstance(run, str) else run
    if not isinstance(run, Run):
        raise BadInput(f"{run!r} cannot be trained; expected a Run or the name of a preset")
    loaded = dataset(run)
    for note in loaded.notes:
        log.info("%s", note)
    fresh = build(run, loaded)
    model = fresh if model is None else _begun(model, fresh)
    run = replace(run, precision=loop.precision(run, model))
    folder = None if out is None else Path(out)
    last = None
    # Closed here and not by the garbage collector, which would swallow a last save that fails.
    with contextlib.closing(loop.train(run, model, loaded, folder)) as steps:
        for last in steps:
            yield last
    if last and last.step < run.steps:  # another process left the loop: it is not finished
        return
    if folder and int(os.environ.get("RANK", "0")) == 0 and (last or not (folder / pretrained.CONFIG).exists()):
        export(folder, run, loaded, last.state if last else None)


def _begun(model: Model, fresh: Model) -> Model:
    """The given model, where it is what the run would build. Raises BadInput where it is another."""
    ours, theirs = models.config_of(model), models.config_of(fresh)
    if other := [k for k in theirs if ours[k] != theirs[k]]:
        told = "; ".join(f"{k} is {ours[k]!r} in the model and {theirs[k]!r} in the run" for k in other)
        raise BadInput(f"the run cannot begin with this model: {told}")
    return model


def export(folder: Path, run: Run, loaded: "Dataset", state: "State | None") -> None:
    """What leaves a run, into its own folder: averaged weights where there are any."""
    facts = {"run": run.to_json(), "data": loaded.fingerprint, "step": state.step if state else run.steps}
    facts |= {"seconds": state.seconds} if state else {}
    if state is None:
        pretrained.load(folder).save_pretrained(folder, facts)
        return
    if state.ema:
        state.ema.swap()
    try:
        state.model.save_pretrained(folder, facts)
    finally:
        if state.ema:
            state.ema.swap()


def home(name: str | os.PathLike[str]) -> Path:
    """The folder behind a name: a path, or a preset that was trained under runs/."""
    plain = ".." not in Path(name).parts
    return RUNS / name if plain and not Path(name).exists() and (RUNS / name).is_dir() else Path(name)


def load(name: str | os.PathLike[str], revision: str | None = None) -> Model:
    """A trained model, ready to draw.

    Args:
        name: a run's folder, a saved model's folder, a preset that was trained under runs/, or a hub name `owner/name`.
        revision: of the hub's repository.

    Raises:
        BadInput: for what is not there, is damaged, or is a pickle.
    """
    root = home(name)
    return pretrained.load(root if root.exists() else name, revision)  # a Path would forget that it was ./written/so


def translate(model: Model | str | os.PathLike[str], x: torch.Tensor, to: str) -> torch.Tensor:
    """Pictures of any size drawn in another domain, by a model that translates.

    Args:
        model: such a model, or its name as for `load`.
        x: (b, c, h, w) in [-1, 1]; what is too large for the net at once goes through in tiles.
        to: name of the domain.

    Returns:
        (b, c, h, w) in [-1, 1], on the CPU.

    Raises:
        BadInput: for a model that does not translate, an unknown domain, or pictures the model cannot take.
    """
    from condgen.editing.translation import Translator

    return Translator(model if isinstance(model, Model) else load(model), to)(x)


def evaluate(name: str | os.PathLike[str], metrics: tuple[str, ...] = (), n: int | None = None, seed: int = 0) -> dict[str, Any]:
    """Measure a trained run, and write RUN/evaluation.json and RUN/report.html.

    Args:
        name: as for `load`; it must have kept its run.
        metrics: names; empty for those of the run, or all that its model and conditions allow.
        n: samples to draw; by default as many as the protocol says.
        seed: of the samples.

    Returns:
        what evaluation.json holds.
    """
    from condgen.evaluation.protocols import evaluate as measure
    from condgen.evaluation.report import write_report
    from condgen.training.checkpoint import atomic

    root, model = home(name), load(name)
    facts = model.facts
    if "run" not in facts:
        raise BadInput(f"{root} does not say what it was trained on: it cannot be evaluated")
    run = Run.from_json(facts["run"])
    _compare_data(run, facts.get("data"))
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    result = measure(model, run, metrics=metrics or None, n=n, seed=seed)
    result["training"] = {k: round(facts[k], 1) for k in ("step", "seconds") if k in facts}
    with atomic(root / "evaluation.json") as draft:
        draft.write_text(json.dumps(result, indent=1))
    write_report(root, result, model, run, root / "metrics.jsonl", dataset(run, "test"))
    if (root / pretrained.CONFIG).exists():
        model.save_pretrained(root, {"evaluation": result})
    return result


def _compare_data(run: Run, trained_on: str | None) -> None:
    now = dataset(run).fingerprint
    if trained_on and trained_on != now:
        log.warning("%s (%s) is not what the model was trained on: it was %s, is %s", run.data, run.split, trained_on, now)


def describe(name: str | os.PathLike[str]) -> dict[str, Any]:
    """What a trained model, a preset or a model is: its class, its options, what can be asked of it, what it can do."""
    root, known = home(name), str(name) in presets() or str(name).split(".")[0] in models.names()
    if root.is_dir() and not (known and _is_empty(root)):
        model = load(name)
        return _description(model) | {"run": model.facts.get("run"), "step": model.facts.get("step")}
    if str(name) in presets():
        run = preset(str(name))
        return _description(build(run, dataset(run))) | {"run": run.to_json()}
    if str(name).split(".")[0] in models.names():
        cls = models.find(str(name))
        return {"model": models.path(cls), "about": inspect.getdoc(cls), "options": _signature(cls), "can": capabilities(cls)}
    raise unknown("run, preset or model", name, [*presets(), *models.names()])


def _is_empty(root: Path) -> bool:
    """Whether no model lies there yet: a training that has just begun, or a folder that only bears the name."""
    from condgen.training.checkpoint import newest

    return not (root / pretrained.CONFIG).is_file() and newest(root / "checkpoints") is None


def _description(model: Model) -> dict[str, Any]:
    config = models.config_of(model)
    size = sum(p.numel() for p in model.parameters())
    return {
        "model": config["model"],
        "about": inspect.getdoc(type(model)),
        "shape": config["shape"],
        "options": config["options"],
        "conditions": schema_to_json(model.schema),
        "can": capabilities(model),
        "parameters": size,
    }


def _signature(cls: type[Model]) -> Mapping[str, Any]:
    skipped = ("self", "shape", "schema")
    return {k: p.default for k, p in inspect.signature(cls.__init__).parameters.items() if k not in skipped}
