"""What a newcomer adds, and nothing more: a kind of condition is its description, its embedding and its parser; a model is one file."""

import importlib
import json
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Generator, Tensor, nn

import condgen as library
from condgen import models
from condgen.conditions import Condition, Label, kinds, parse, say, schema_from_json, schema_to_json
from condgen.data import load
from condgen.errors import BadInput
from condgen.networks.embed import embed

# --- a new kind of condition: all that it takes ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class Angle(Condition):
    """A direction. Values: float32 (b,), in degrees from 0 to 360."""

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    def uniform(self, n: int, generator: Generator | None = None) -> Tensor:
        return 360 * torch.rand(n, generator=generator)


class CosSin(nn.Module):
    """Degrees (b,) -> (b, dim), by the point on the circle: 359 lies beside 1."""

    def __init__(self, dim: int):
        super().__init__()
        self.linear = nn.Linear(2, dim)

    def forward(self, angle: Tensor) -> Tensor:
        radians = angle * math.pi / 180
        return self.linear(torch.stack([radians.cos(), radians.sin()], 1))


@embed.register
def _(condition: Angle, dim: int) -> nn.Module:
    return CosSin(dim)


@parse.register
def _(condition: Angle, word: Any) -> Tensor:
    try:
        return torch.tensor(float(str(word).removesuffix("°")) % 360)
    except ValueError:
        raise BadInput(f"{word!r} is no angle; write degrees, such as 90 or 90°") from None


# --- and what it gets -----------------------------------------------------------------------------------------------------------

SCHEMA = {"angle": Angle(), "kind": Label(("line", "dash"))}
CHEAP = ["--steps", 2, "--batch", 8, "--model.width", 8, "--model.z_dim", 4]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Lines through the middle of 8 px pictures, drawn at an angle; the schema lies beside the arrays."""
    path = tmp_path_factory.mktemp("lines") / "lines.npz"
    angle = np.arange(40, dtype=np.float32) * 9
    y, x = np.mgrid[-3.5:4.5, -3.5:4.5]
    off = np.abs(x * np.sin(np.deg2rad(angle))[:, None, None] - y * np.cos(np.deg2rad(angle))[:, None, None])
    kinds_of = np.array(["line", "dash"])[np.arange(40) % 2]
    np.savez(
        path, x=(255 * np.exp(-off)).astype(np.uint8), angle=angle, kind=kinds_of, split=np.array(["train", "train", "train", "test"] * 10)
    )
    path.with_suffix(".schema.json").write_text(json.dumps(schema_to_json(SCHEMA)))
    return path


def test_a_new_kind_is_known_by_its_name():
    assert kinds()["Angle"] is Angle and schema_from_json(json.loads(json.dumps(schema_to_json(SCHEMA)))) == SCHEMA
    assert parse(Angle(), "450°").item() == 90 and parse(Angle(), say(Angle(), torch.tensor(90.0))).item() == 90
    assert embed(Angle(), 5)(torch.tensor([0.0, 360.0])).diff(dim=0).abs().max() < 1e-5


def test_a_new_kind_is_read_from_data(lines):
    data = load(str(lines))
    assert data.schema == SCHEMA and len(data) == 30 and len(load(str(lines), "test")) == 10
    assert data.values()["angle"][:4].tolist() == [0, 9, 18, 36]


def test_a_new_kind_is_read_from_a_folders_metadata(tmp_path):
    from PIL import Image

    rows = [f"{i}.png,{10 * i}°" for i in range(8)]
    for i in range(8):
        Image.fromarray(np.full((8, 8), 20 * i, dtype=np.uint8)).save(tmp_path / f"{i}.png")
    (tmp_path / "metadata.csv").write_text("\n".join(["file_name,angle", *rows]))
    (tmp_path / "schema.json").write_text(json.dumps(schema_to_json({"angle": Angle()})))
    found = [angle for split in ("train", "test") for angle in load(str(tmp_path), split).values()["angle"].tolist()]
    assert sorted(found) == [10.0 * i for i in range(8)]


@pytest.mark.parametrize("model, sizes", [("cgan", CHEAP), ("cvae", [*CHEAP[:4], "--model.z_dim", 4, "--model.hidden", "[16]"])])
def test_a_new_kind_is_trained_saved_loaded_and_asked_for(model, sizes, lines, workplace, condgen):
    trained = condgen("train", model, "--data", lines, "--out", "run", *sizes, "--json")
    assert trained.code == 0 and trained.json["steps"] == 2

    drawn = condgen("sample", "run", "--set", "angle=90", "-n", 4, "--seed", 0, "--out", "ninety.npz")
    assert drawn.code == 0
    with np.load("ninety.npz") as arrays:
        assert arrays["x"].shape == (4, 8, 8, 1) and arrays["angle"].tolist() == [90] * 4

    described = condgen("describe", "run", "--json").json
    assert described["conditions"] == schema_to_json(SCHEMA)
    assert "--set angle=" in condgen("describe", "run").out

    wrong = condgen("sample", "run", "--set", "angle=north", "--out", "north.npz")
    assert wrong.code == 2 and "'north' is no angle; write degrees" in wrong.err and not Path("north.npz").exists()

    loaded = library.load("run")
    assert loaded.schema == SCHEMA
    loaded.save_pretrained("copy")
    a, b = (m.sample({"angle": 90, "kind": "line"}, n=3, seed=0) for m in (loaded, library.load("copy")))
    assert torch.equal(a, b) and not torch.allclose(a, loaded.sample({"angle": 200, "kind": "line"}, n=3, seed=0), atol=1e-4)
    assert "`angle` | Angle" in Path("copy/README.md").read_text()


# --- a new model: one file ------------------------------------------------------------------------------------------------------

ONE_FILE = '''\
"""Gaussian of each class: x ~ N(mean_c, diag(sigma^2)).

The simplest conditional model that there is, to show what one file gets.
"""

import torch
from torch import nn

from condgen.errors import BadInput
from condgen.model import Optimizer, Run, Sampler
from condgen.objectives.reconstruction import normal_log_prob


class ClassGaussian(Sampler):
    """A mean picture for each class.

    Args:
        shape: of a sample.
        schema: one label.
        start: the log-variance at first.
    """

    def __init__(self, shape, schema, start: float = -1.0):
        super().__init__(shape, schema)
        self.name, label = next(((k, c) for k, c in schema.items() if hasattr(c, "names")), (None, None))
        if label is None:
            raise BadInput("bell needs a label")
        d = torch.Size(shape).numel()
        self.mean = nn.Embedding(len(label.names), d)
        self.log_var = nn.Parameter(torch.full((d,), start))

    def turns(self, batch, step):
        mean = self.mean(batch.c[self.name])
        yield {"model": {"nll": -normal_log_prob(batch.x.flatten(1), mean, self.log_var.expand_as(mean))}}

    def prior(self, n, c):
        return self.noise.normal(n, len(self.log_var)).to(self.device)

    def decode(self, z, c):
        return (self.mean(c[self.name]) + (self.log_var / 2).exp() * z).clamp(-1, 1).unflatten(1, self.shape)


_ADAM = Optimizer(lr=0.1)
PRESETS = {"bell-digits": Run("bell.ClassGaussian", "digits", optimizers={"*": _ADAM}, steps=30, precision="32", source="a test")}
'''


@pytest.fixture
def bell(tmp_path: Path) -> Iterator[None]:
    """`bell.py` in a folder of its own, beside the models that come with the library."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "bell.py").write_text(ONE_FILE)
    models.__path__.append(str(folder))
    importlib.invalidate_caches()
    yield
    models.__path__.remove(str(folder))
    sys.modules.pop("condgen.models.bell", None)
    vars(models).pop("bell", None)
    importlib.invalidate_caches()


def test_without_its_file_there_is_no_model(condgen, workplace):
    answer = condgen("train", "bell-digits", "--steps", 1)
    assert answer.code == 2 and "unknown preset or model 'bell-digits'" in answer.err


def test_one_file_gets_every_tool(bell, workplace, condgen):
    assert "Gaussian of each class" in condgen("list", "models", "--json").json["bell"]
    assert "bell-digits" in condgen("list", "presets", "--json").json
    assert condgen("describe", "bell", "--json").json == {
        "model": "bell.ClassGaussian",
        "about": library.models.find("bell").__doc__.replace("\n    ", "\n").strip(),
        "options": {"start": -1.0},
        "can": ["sample", "decode"],
    }

    # train, and the same command again
    words = ["train", "bell-digits", "--steps", 20, "--model.start", "-0.5", "--json"]
    first = condgen(*words)
    assert first.code == 0 and first.json["out"] == "runs/bell-digits" and first.json["losses"].keys() == {"model/nll"}
    assert condgen(*words).json["seconds"] == 0.0, "nothing is left to do"
    wrong = condgen("train", "bell-digits", "--model.strat", 1)
    assert wrong.code == 2 and "did you mean '--model.start'" in wrong.err

    # sample
    assert condgen("sample", "bell-digits", "--set", "digit=7", "-n", 3, "--seed", 0, "--out", "seven.npz").code == 0
    with np.load("seven.npz") as arrays:
        assert arrays["x"].shape == (3, 8, 8, 1) and arrays["digit"].tolist() == [7, 7, 7]
    assert condgen("sample", "bell-digits", "--out", "grid.png").code == 0 and Path("grid.png").stat().st_size > 100

    # evaluate, with metrics that need no judge
    result = condgen("evaluate", "bell-digits", "--metrics", "diversity_ratio,parzen", "-n", 100, "--json")
    assert result.code == 0 and set(result.json["metrics"]) == {"diversity_ratio", "parzen"}
    assert all(math.isfinite(m["value"]) for m in result.json["metrics"].values())
    assert json.loads(Path("runs/bell-digits/evaluation.json").read_text())["metrics"].keys() == result.json["metrics"].keys()
    assert "diversity" in Path("runs/bell-digits/report.html").read_text()

    # save, load
    model = library.load("bell-digits")
    assert model.options == {"start": -0.5} and type(model).__name__ == "ClassGaussian"
    model.save_pretrained("copy")
    assert torch.equal(library.load("copy").sample({"digit": 3}, n=2, seed=1), model.sample({"digit": 3}, n=2, seed=1))
    assert "Gaussian of each class" in Path("copy/README.md").read_text()


def test_what_cannot_be_measured_of_it_is_said(bell, workplace, condgen):
    assert condgen("train", "bell-digits", "--steps", 1, "--json").code == 0
    answer = condgen("evaluate", "bell-digits", "--metrics", "elbo")
    assert answer.code == 2 and "elbo cannot be measured: the model has no `log_weights`" in answer.err


def test_a_saved_model_whose_file_is_gone_is_refused(bell, workplace, condgen, tmp_path):
    assert condgen("train", "bell-digits", "--steps", 1, "--json").code == 0
    (tmp_path / "mine" / "bell.py").unlink()
    sys.modules.pop("condgen.models.bell")
    importlib.invalidate_caches()
    answer = condgen("sample", "runs/bell-digits", "--out", "x.npz")
    assert answer.code == 2 and "unknown model 'bell.ClassGaussian'" in answer.err
