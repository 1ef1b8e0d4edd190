"""Every preset binds to what it names, survives JSON, and runs: a preset that has rotted fails here."""

import inspect
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import condgen
from condgen import models
from condgen.api import plan, preset
from condgen.data import available
from condgen.errors import BadInput
from condgen.evaluation.protocols import METRICS
from condgen.model import Optimizer, Run, capabilities
from condgen.models.cgan import CGAN
from condgen.training import loop, schedules, state

PRESETS = models.presets()
EMBEDDED = ("digits", "mixture2d")
SMALL = {
    "z_dim": 4,
    "width": 8,
    "maps": 0.0625,
    "hidden": (16,),
    "prior_hidden": 8,
    "channels": 4,
    "dense": 8,
    "code_dim": 4,
    "ae_hidden": (16,),
    "widest": 16,
    "depth": 2,
}
SMALL_OF = {
    "gauthier.Gauthier": {"hidden": 16, "filters": (4, 4, 6)},
    "bigan.BiGAN": {"hidden": 16},
    "bigan.LatentRegressor": {"hidden": 16},
    "semiali.SemiALI": {"labelled": 10},
    "latent_constraints.LatentConstraints": {"base": "", "vae_steps": 1, "latent_width": 8, "actor_every": 1},
    "cyclegan.CycleGAN": {"width": 4, "blocks": 1},
}
TRANSLATORS = {"cyclegan.CycleGAN"}
"""Models of data in two domains."""
PICTURES = {"stylegan.StyleGAN", "cyclegan.CycleGAN", "features.Features"}
"""Models of pictures alone."""
each_preset = pytest.mark.parametrize("name", PRESETS)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """28 px pictures of ten classes, as many as two batches, in the place of sets that are not embedded."""
    path = tmp_path_factory.mktemp("data") / "tiny.npz"
    pixels = np.random.default_rng(0).integers(0, 256, (40, 28, 28), dtype=np.uint8)
    np.savez(path, x=pixels, digit=np.arange(40) % 10, split=np.array(["train"] * 30 + ["test"] * 10))
    np.savez(domains(path), x=pixels, domain=np.array(["plain", "striped"])[np.arange(40) % 2], split=np.load(path)["split"])
    return path


def domains(tiny: Path) -> Path:
    """The same pictures in two domains."""
    return tiny.with_name("domains.npz")


def parameters(run: Run) -> dict[str, inspect.Parameter]:
    found = dict(inspect.signature(models.find(run.model).__init__).parameters)
    return {k: p for k, p in found.items() if k not in ("self", "shape", "schema")}


def shrunk(run: Run, tiny: Path) -> Run:
    """The same in all but size: two steps of eight, small nets, and data that are at hand."""
    small = {k: v for k, v in (SMALL | SMALL_OF.get(run.model, {})).items() if k in parameters(run) and run.options.get(k) not in ((), 0)}
    data = run.data if run.data in EMBEDDED else str(domains(tiny) if run.model in TRANSLATORS else tiny)
    size = 64 if run.options.get("nets") == "celeba" else run.size
    return replace(run, options={**run.options, **small}, data=data, size=size, conditions=(), batch=8, steps=2, log_every=1)


def test_there_are_presets_of_every_model():
    assert {run.model.partition(".")[0] for run in PRESETS.values()} == set(models.names())
    for name, run in PRESETS.items():
        file, _, cls = run.model.partition(".")
        assert run.name == name and name.startswith((file.replace("_", "-") + "-", cls.lower() + "-")), "after the file, or the class"


@each_preset
def test_a_preset_binds_to_its_models_constructor(name):
    run = PRESETS[name]
    inspect.signature(models.find(run.model)).bind(shape=(1, 8, 8), schema={}, **run.options)
    assert run.model == models.path(models.find(run.model)), "the full path, as it is written in run.json"
    for option, value in run.options.items():
        default = parameters(run)[option].default
        assert default is None or type(value) is type(default), f"{option} is {value!r}, the default {default!r}"


@each_preset
def test_what_a_preset_names_exists(name, tiny):
    run = PRESETS[name]
    assert run.data in available() and set(run.metrics) <= set(METRICS) and run.source
    model = condgen.api.build(shrunk(run, tiny), condgen.api.dataset(shrunk(run, tiny)))
    assert run.optimizers.keys() <= model.players().keys() | {"*"}
    for player in model.players():
        optimizer = run.optimizer(player)
        assert optimizer.kind in state.KINDS and optimizer.schedule in schedules.SCHEDULES and optimizer.lr > 0
        assert all(0 <= b < 1 for b in optimizer.betas)
    assert loop.precision(run, model) in ("32", "bf16")
    assert run.steps > 0 and run.batch > 0 and run.half_life_images >= 0


@each_preset
def test_reported_values_are_numbers_of_known_metrics(name):
    for metric, value in PRESETS[name].reported.items():
        assert metric in METRICS
        numbers = value if isinstance(value, tuple) else (value,)
        assert len(numbers) <= 2 and all(isinstance(v, (int, float)) and math.isfinite(v) for v in numbers)


@each_preset
def test_a_preset_survives_json(name):
    run = PRESETS[name]
    assert Run.from_json(run.to_json()) == run
    text = json.dumps(run.to_json())
    again = Run.from_json(json.loads(text))
    assert json.dumps(again.to_json()) == text
    assert (again.optimizers, again.metrics, again.conditions) == (run.optimizers, run.metrics, run.conditions)


@each_preset
def test_a_preset_runs_from_end_to_end(name, tiny, tmp_path):
    run = shrunk(PRESETS[name], tiny)
    steps = list(condgen.train(run, tmp_path / "run"))
    assert [s.step for s in steps] == [1, 2] and all(v.isfinite() for v in steps[-1].losses.values())
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [r["step"] for r in rows] == [1, 2] and steps[-1].losses.keys() <= rows[-1].keys()
    model = condgen.load(tmp_path / "run")
    assert models.path(model) == run.model and not model.training
    if "sample" in capabilities(model):
        x = model.sample(n=3, seed=0)
        assert x.shape == (3, *model.shape) and torch.equal(x, condgen.load(tmp_path / "run").sample(n=3, seed=0))
    assert {p.name for p in (tmp_path / "run").iterdir()} >= {"run.json", "config.json", "model.safetensors", "README.md", "checkpoints"}
    assert list(condgen.train(run, tmp_path / "run")) == [], "the same again has nothing left to do"


# --- runs ---------------------------------------------------------------------------------------------------------------------


def test_a_run_with_an_unknown_field_is_refused():
    with pytest.raises(BadInput, match=r"field of a run 'stepps': did you mean 'steps'\?"):
        Run.from_json({"model": "gan.GAN", "data": "digits", "stepps": 3})
    with pytest.raises(BadInput, match="cannot be used"):
        Run.from_json({"model": "gan.GAN"})
    with pytest.raises(BadInput, match="cannot be used"):
        Run.from_json({"model": "gan.GAN", "data": "digits", "optimizers": {"*": {"rate": 1, "betas": [0, 0.9]}}})


def test_an_unknown_preset_is_told_the_nearest():
    with pytest.raises(BadInput, match=r"unknown preset 'cgan-digit': did you mean 'cgan-digits'\?"):
        preset("cgan-digit")
    with pytest.raises(BadInput, match="did you mean 'cgan-digits'"):
        next(condgen.train("cgan-digit"))


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"options": {"widht": 8}}, r"option of gan.GAN 'widht': did you mean 'width'\?"),
        ({"model": "gn.GAN"}, "unknown model 'gn.GAN'"),
        ({"model": "gan.CGAN"}, "unknown model in gan 'CGAN'"),
        ({"conditions": ("digt",)}, r"condition of the data 'digt': did you mean 'digit'\?"),
        ({"optimizers": {"*": Optimizer("Adaam")}}, r"optimizer 'Adaam': did you mean 'Adam'\?"),
        ({"optimizers": {"*": Optimizer(schedule="cosin")}}, r"schedule 'cosin': did you mean 'cosine'\?"),
        ({"optimizers": {"E": Optimizer(), "*": Optimizer()}}, "unknown player 'E'.* Valid: D, G"),
        ({"optimizers": {"D": Optimizer()}}, "no optimiser for player 'G'"),
        ({"precision": "16"}, "valid are auto, 32, bf16"),
        ({"data": "digts"}, r"unknown data 'digts': did you mean 'digits'\?"),
        ({"split": "trein"}, "'trein': did you mean 'train'"),
    ],
)
def test_a_run_that_cannot_be_is_refused_before_its_first_step(changes, says):
    run = replace(PRESETS["gan-digits"], options={"width": 8, "z_dim": 4}, steps=2, batch=8)
    with pytest.raises(BadInput, match=says):
        next(condgen.train(replace(run, **changes)))


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"batch": 0}, "batch is 0; expected a whole number of at least 1"),
        ({"batch": 8.0}, "batch is 8.0; expected a whole number"),
        ({"batch": True}, "batch is True; expected a whole number"),
        ({"steps": -1}, "steps is -1; expected a whole number of at least 0"),
        ({"steps": "10"}, "steps is '10'; expected a whole number"),
        ({"seed": -1}, "seed is -1; expected a whole number of at least 0"),
        ({"seed": 2**63}, "expected a whole number of at most"),
        ({"log_every": None}, "log_every is None; expected a whole number"),
        ({"size": 0}, "size is 0; expected a whole number of at least 1"),
        ({"model": CGAN}, "model is .*CGAN.*; expected str"),
        ({"data": Path("birds")}, r"data is PosixPath\('birds'\); expected str"),
        ({"options": None}, "options is None; expected dict"),
        ({"conditions": "digit"}, "conditions is 'digit'; expected tuple"),
        ({"half_life_images": -1.0}, "half_life_images is -1.0"),
        ({"clip": 0}, "clip is 0; expected a number above 0, or None"),
        ({"optimizers": {"*": "Adam"}}, r"the optimizer of '\*' is 'Adam'; expected an Optimizer"),
    ],
)
def test_a_run_whose_fields_make_no_sense_cannot_be_made(changes, says):
    with pytest.raises(BadInput, match=says):
        replace(PRESETS["gan-digits"], **changes)


@pytest.mark.parametrize(
    "changes", [{"lr": "fast"}, {"lr": -1.0}, {"lr": math.nan}, {"betas": (0.9,)}, {"betas": (0, 1)}, {"schedule": None}]
)
def test_an_optimiser_that_makes_no_sense_cannot_be_made(changes):
    (name,) = changes
    with pytest.raises(BadInput, match=f"{name} is "):
        Optimizer(**changes)


def test_what_is_no_run_is_refused():
    with pytest.raises(BadInput, match="3 cannot be trained; expected a Run or the name of a preset"):
        next(condgen.train(3))


@pytest.fixture(scope="module")
def points(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "points.npz"
    np.savez(path, x=np.random.default_rng(0).normal(size=(30, 2)).astype(np.float32), label=np.arange(30) % 3)
    return path


@pytest.mark.parametrize("model", models.names())
@pytest.mark.parametrize("source", ["tiny", "points"])
def test_a_run_is_planned_for_a_persons_own_data(model, source, request):
    path = str(request.getfixturevalue(source))
    if source == "points" and models.path(models.find(model)) in PICTURES:
        pytest.skip(f"{model} draws pictures alone")
    if models.path(models.find(model)) in TRANSLATORS:
        path = str(domains(Path(path)))
    run = plan(model, path)
    assert run.model == models.path(models.find(model)) and run.data == path and run.size is None and run.steps > 0
    assert run.batch <= len(condgen.api.dataset(run)) and run.options.keys() <= parameters(run).keys()
    (step,) = condgen.train(replace(run, steps=1))
    assert all(v.isfinite() for v in step.losses.values())


@pytest.mark.parametrize(
    "sides, size", [((128, 128), 64), ((28, 28), None), ((30, 30), 24), ((64, 48), None), ((100, 40), 40), ((33, 31), 24)]
)
@pytest.mark.parametrize("kind", ["npz", "folder"])
def test_large_or_odd_pictures_are_brought_to_a_side_that_suits(sides, size, kind, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, *sides), dtype=np.uint8)
    source = tmp_path / ("set.npz" if kind == "npz" else "set")
    if kind == "npz":
        np.savez(source, x=pixels)
    else:
        source.mkdir()
        for i, picture in enumerate(pixels):
            Image.fromarray(picture).save(source / f"{i}.png")
    run = plan("gan", source)
    assert run.size == size and run.data == str(source)
    shape = condgen.api.dataset(run).shape
    assert shape == (1, *((size, size) if size else sides))
    if size != 64:
        condgen.api.build(replace(run, options={"width": 4, "z_dim": 2}), condgen.api.dataset(run))


def test_a_plan_needs_a_model_and_data_that_are_there(tiny):
    with pytest.raises(BadInput, match="unknown model 'gam': did you mean 'gan'"):
        plan("gam", str(tiny))
    with pytest.raises(BadInput, match=r"nowhere\.npz"):
        plan("gan", "nowhere.npz")


def test_registries_refuse_what_is_no_file_of_theirs():
    for name in (
        "",
        "..cgan",
        "cgan.",
        "cgan.Model",
        "cgan.Sampler",
        "cgan.nn",
        "cgan.CGAN.decode",
        "os.system",
        "../cgan",
        "__init__.Model",
        "CGAN",
    ):
        with pytest.raises(BadInput, match="unknown model"):
            models.find(name)
    with pytest.raises(BadInput, match=r"Model is defined in condgen\.model"):
        models.path(condgen.Model)
