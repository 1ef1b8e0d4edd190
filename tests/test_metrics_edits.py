"""Edits of test pictures on a model and a judge whose answers are known, and the figure that shows them."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from condgen import api, figures
from condgen.conditions import Attributes, Label
from condgen.data.store import Batch
from condgen.editing.constraints import attribute_critic, realism_critic
from condgen.errors import BadInput
from condgen.evaluation.edits import attribute_edits, edit_success, shows, z_mse
from condgen.evaluation.metrics import METRICS
from condgen.evaluation.protocols import evaluate
from condgen.figures.canvas import Tiles, colours
from condgen.model import Optimizer, Run, Sampler

LABEL = Label(("a", "b", "c"))
FACE = Attributes(("smile", "age"), (0.0, 20.0), (1.0, 60.0))


class Rows(Sampler):
    """Class k is a bright row k; an edit brightens the asked row, and of every `fails`-th changed picture nothing."""

    def __init__(self, shape=(1, 8, 8), schema=None, fails=0):
        super().__init__(shape, schema or {"kind": LABEL})
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.fails = fails

    def turns(self, batch, step):
        yield {}

    def prior(self, n, c):
        return torch.zeros(n, 64)

    def encode(self, x, c):
        return x.flatten(1)

    def decode(self, z, c):
        return z.unflatten(1, self.shape)

    def edit(self, x, c):
        changed = named(x) != c["kind"]
        out = x.clone()
        for i in changed.nonzero().flatten().tolist():
            out[i, 0, :3] = -1
            out[i, 0, c["kind"][i]] = 1
        if self.fails:
            stays = changed.nonzero().flatten()[:: self.fails]
            out[stays] = x[stays]
        return out, changed


def named(x):
    return x[:, 0, :3].mean(2).argmax(1)


def pictures(n=12):
    g = torch.Generator().manual_seed(0)
    x, k = 0.2 * torch.randn(n, 1, 8, 8, generator=g) - 0.5, torch.arange(n) % 3
    x[torch.arange(n), 0, k] = 1
    return x.clamp(-1, 1), k


def context(model, **changes):
    x, k = pictures()
    judge = SimpleNamespace(id="judge-v0", accuracy={"kind": 0.99}, predict=lambda some, name: named(some))
    given = {"model": model, "label": "kind", "classes": 3, "judge": judge, "seed": 0, "real": Batch(x, {"kind": k}), "n": 12}
    return SimpleNamespace(**{**given, "real_conditions": {"kind": k}, **changes})


def test_edits_that_succeed_are_counted_and_what_holds_comes_back():
    found = edit_success(context(Rows()))
    assert list(found) == ["edit_success", "edit_success/unchanged", "edit_success/ssim"]
    whole, same, likeness = found.values()
    assert (whole.value, whole.control, whole.ceiling, whole.n) == (1.0, 0.0, 0.99, 24)
    assert (same.value, same.n) == (1.0, 12)
    assert likeness.control < likeness.value < 1, "the rest of the picture stayed"
    assert "judge-v0" in whole.provenance and "pictures=12" in whole.provenance


def test_edits_that_fail_are_not():
    found = edit_success(context(Rows(fails=2)))["edit_success"]
    assert found.value == 0.5 and found.standard_error == pytest.approx((0.25 / 24) ** 0.5)


def test_a_picture_that_was_touched_is_not_unchanged():
    class Touching(Rows):
        def edit(self, x, c):
            out, changed = super().edit(x, c)
            out[~changed] += 1e-6
            return out, changed

    class Restless(Rows):
        def edit(self, x, c):
            return x.clone(), torch.ones(len(x), dtype=torch.bool)

    assert edit_success(context(Touching()))["edit_success/unchanged"].value == 0
    assert edit_success(context(Restless()))["edit_success/unchanged"].value == 0


def test_attributes_are_asked_to_cross_their_middle():
    values = torch.tensor([[0.9, 30.0], [0.1, 55.0]])
    assert shows(FACE, values, torch.tensor([0, 0])).tolist() == [True, False]
    assert shows(FACE, values, torch.tensor([-1, -2])).tolist() == [False, False]
    assert shows(FACE, values, torch.tensor([1, 1])).tolist() == [False, True]
    seen = []

    class Asked(Rows):
        def edit(self, x, c):
            seen.append(c["face"])
            return x.clone(), torch.ones(len(x), dtype=torch.bool)

    x, _ = pictures(2)
    judge = SimpleNamespace(id="j", accuracy={}, predict=lambda some, name: values[torch.arange(len(some)) // 2])
    m = context(Asked(schema={"face": FACE}), label="", real=Batch(x, {"face": values}), real_conditions={"face": values}, judge=judge)
    found = attribute_edits(m, "face", 4)
    nan = float("nan")
    asked = torch.tensor([[0.0, nan], [nan, 60.0], [1.0, nan], [nan, 20.0]])
    assert torch.equal(seen[0].isnan(), asked.isnan()) and torch.equal(seen[0].nan_to_num(), asked.nan_to_num())
    assert not found.held.any() and not found.success.any(), "the judge sees what it saw before"
    family = edit_success(m)
    assert family["edit_success"].ceiling is None and "edit_success/unchanged" not in family


def test_a_model_without_names_is_refused():
    with pytest.raises(BadInput, match="the model reads neither"):
        edit_success(context(Rows(schema={}), label="", real_conditions={}))
    with pytest.raises(BadInput, match="moves no latents by an actor"):
        z_mse(context(Rows()))


def test_they_are_in_the_table():
    assert METRICS["edit_success"].higher and not METRICS["z_mse"].higher
    assert METRICS["z_mse"].refusal(Rows()) is None


# --- a real run -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    at = tmp_path_factory.mktemp("runs")
    small = {"z_dim": 4, "hidden": (16,)}
    made = {"latent": ("latent_constraints.LatentConstraints", {**small, "vae_steps": 20, "latent_width": 16}), "vae": ("vae.VAE", small)}
    for name, (model, options) in made.items():
        run = Run(model, "digits", options, {"*": Optimizer(lr=3e-3)}, batch=32, steps=40, save_every=0, sample_every=0, precision="32")
        list(api.train(run, at / name))
    return at


def test_a_run_is_measured(runs, monkeypatch):
    monkeypatch.setattr("condgen.evaluation.edits.PICTURES", 20)
    model = api.load(runs / "latent")
    found = evaluate(model, Run.from_json(model.facts["run"]), metrics=("edit_success", "z_mse"), n=100)["metrics"]
    assert 0 <= found["edit_success"]["value"] <= 1 and found["edit_success"]["n"] == 180
    z, c = model.draws(100, {}), {"digit": torch.zeros(100, dtype=torch.long)}
    assert found["z_mse"]["value"] > 0 and found["z_mse"]["control"] == pytest.approx(2 * (1 / model.sigma**2).mean().item(), rel=0.3)
    assert model.displacement(c, 100, 3).shape == (100,) and len(z) == 100


@pytest.mark.parametrize("name", ["latent", "vae"])
def test_the_figure_is_black_where_it_holds(runs, name, tmp_path, monkeypatch):
    seen: list[Tiles] = []
    monkeypatch.setattr("condgen.figures.identity.attribute_critic", partial(attribute_critic, steps=60))
    monkeypatch.setattr("condgen.figures.identity.realism_critic", partial(realism_critic, steps=30))
    monkeypatch.setattr("condgen.figures.identity.draw_tiles", lambda tiles, out: seen.append(tiles) or out)
    figures.figure("identity", tmp_path / "a.png", runs / name, n=3, seed=1)
    (tiles,) = seen
    assert tiles.cells.shape[:2] == (3, 12) and list(tiles.columns) == ["picture", "reconstr.", *"0123456789"]
    black = (tiles.cells[:, 2:] == 0).reshape(3, 10, -1).all(2).sum(1)
    assert (black == 1).all(), "each picture is one digit to the critic"
    test = api.dataset(Run.from_json(api.load(runs / name).facts["run"]), "test")
    first = torch.randperm(len(test), generator=torch.Generator().manual_seed(1))[:3]
    assert np.array_equal(tiles.cells[:, 0], colours(test.batch(first).x))


def test_what_the_figure_cannot_show_is_told(runs, tmp_path):
    with pytest.raises(BadInput, match="digit is a label: the figure asks for each of 0, 1, 2"):
        figures.figure("identity", tmp_path / "a.png", runs / "vae", attributes=["smile"])
    list(api.train(Run("gan.GAN", "digits", {"width": 4, "z_dim": 4}, batch=8, steps=1), tmp_path / "gan"))
    with pytest.raises(BadInput, match="GAN has no `encode`"):
        figures.figure("identity", tmp_path / "a.png", tmp_path / "gan")
