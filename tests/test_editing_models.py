"""Every editor on every model that there is: it works where the model has what it needs, and names what is missing where not."""

import functools
from typing import Any

import pytest
import torch
from torch import nn

from condgen import models
from condgen.conditions import Attributes, Label
from condgen.editing.constraints import attribute_critic
from condgen.editing.inversion import Inverse, invert, last
from condgen.editing.pictures import Given
from condgen.editing.space import Space
from condgen.edits import EDITS, analogy, attribute, constrain, grid, interpolate, inversion, mix
from condgen.edits.subject import Manner, Subject
from condgen.errors import BadInput
from condgen.model import Model, capabilities
from test_contract import CASES, Case

ROWS = 24
SHORT = Manner(descent=2)


class Known(Subject):
    """A subject whose run's data are at hand."""

    case: Case
    has_data = True

    def data(self) -> Any:
        return self.case.dataset(ROWS)


@functools.cache
def model_of(path: str, data: str) -> Model:
    return Case(path, data).trained().requires_grad_(False)


def subject(case: Case, n: int, manner: Manner = SHORT) -> Known:
    model, batch = model_of(case.path, case.data), case.batch(n)
    given = [Given(str(i), x, None, {k: batch.c[k][i : i + 1] for k in model.schema}) for i, x in enumerate(batch.x)]
    known = Known("toy", model, given, {}, manner)
    known.case = case
    return known


def name_of_attribute(case: Case) -> str | None:
    """Something that some samples of the data have."""
    for name, condition in case.schema.items():
        if isinstance(condition, Label):
            return f"{name}={condition.names[0]}"
        if isinstance(condition, Attributes):
            return condition.names[0]
    return None


def check(sheet: Any, subject: Subject, n: int) -> None:
    """n edited samples, each what its latent decodes to under its conditions."""
    assert sheet.x.shape == (n, *subject.model.shape) and len(sheet.z) == n and sheet.x.isfinite().all()
    assert set(sheet.c) == set(subject.model.schema) and all(len(v) == n for v in sheet.c.values())
    assert torch.allclose(subject.decode(sheet.z, sheet.c), sheet.x, atol=1e-4)
    assert sheet.cells.shape[2:] == sheet.frames.shape[2:] == sheet.x.shape[1:]


def chosen() -> list[Case]:
    """Every model on the richest conditions that it serves, and on points; what it is besides its defaults changes no editor."""
    plain = [c for c in CASES if hasattr(models.find(c.path), "decode") and not c.variant and c.data in ("8px", "8px-everything", "points")]
    by_kind = {(c.path, len(c.shape)): c for c in sorted(plain, key=lambda c: len(c.schema))}
    return list(by_kind.values())


every = pytest.mark.parametrize("case", chosen(), ids=str)


@every
def test_walks_and_sheets(case):
    one = subject(case, 3)
    before = {k: v.clone() for k, v in one.model.state_dict().items()}
    check(interpolate.draw(one, steps=3), one, 5)
    check(analogy.draw(one), one, 1)
    check(analogy.draw(one, grid="2x3"), one, 6)
    check(grid.draw(one, spacing=2), one, 5)
    assert one.z.shape[0] == 3 and torch.equal(interpolate.draw(one, steps=2).z[[0, 2]], one.z[[0, 2]])
    assert all(torch.equal(v, before[k]) for k, v in one.model.state_dict().items()), "an editor only reads"


@every
def test_attributes_of_the_training_data(case):
    one = subject(case, 2)
    name = name_of_attribute(case) or ("blur" if len(case.shape) == 3 else None)
    if name is None:
        with pytest.raises(BadInput, match="unknown attribute"):
            attribute.draw(one, names=["smile"], rows=12)
        return
    check(attribute.draw(one, names=[name], steps=3, rows=12), one, 6)
    check(attribute.draw(one, names=[name], amount=0.5, rows=12), one, 2)


@every
def test_neighbours_among_the_training_data(case):
    one = subject(case, 1)
    check(grid.draw(one, neighbours=6, rows=10), one, 6)


@every
def test_inversion(case):
    one = subject(case, 2)
    sheet = inversion.draw(one, restarts=1)
    check(sheet, one, 2)
    descent = list(invert(one.model, one.x, one.c, steps=15))
    assert (descent[-1].loss < descent[0].loss).all(), "every decoder that there is can be descended through"
    forced = subject(case, 2, Manner(invert=True, descent=3))
    assert isinstance(forced.space, Inverse) and forced.z.shape == descent[-1].z.shape
    assert isinstance(one.space, Space if "encode" in capabilities(one.model) else Inverse)


@every
def test_rules_and_conditions_that_are_wanted(case, monkeypatch):
    monkeypatch.setattr(constrain, "attribute_critic", functools.partial(attribute_critic, steps=5))
    one = subject(case, 2)
    check(constrain.draw(one, wants=["ink>=0.95"], steps=3, realism=0.0), one, 2)
    name = name_of_attribute(case)
    if name is None:
        with pytest.raises(BadInput, match="unknown condition 'smile'"):
            constrain.draw(one, wants=["smile=1"])
        return
    wanted = name if "=" in name else f"{name}=1"
    if not one.model.schema and not one.encodes:
        with pytest.raises(BadInput, match="has no `encode`"):
            constrain.draw(one, wants=[wanted])
        return
    sheet = constrain.draw(one, wants=[wanted], steps=3, realism=0.0, rows=20)
    assert sheet.x.shape == one.x.shape and sheet.x.isfinite().all() and sheet.told.keys() == {"held_before", "holds"}


@every
def test_layers_of_two_samples_are_mixed(case):
    if "synthesis" not in capabilities(model_of(case.path, case.data)):
        with pytest.raises(BadInput, match=r"w\+ needs styles: .* has no `synthesis`"):
            subject(case, 2, Manner(descent=2, space="w+"))
        return
    one = subject(case, 2, Manner(descent=2, space="w+"))
    if len(one.trained.layer_sides) == 1:
        with pytest.raises(BadInput, match="a single layer"):
            mix.draw(one)
        return
    check(mix.draw(one, layers=["fine"]), one, 1)


# --- what is missing is named -----------------------------------------------------------------------------------------------


class Deaf(Model):
    """Cannot do anything but sample."""

    def __init__(self, shape=(1, 8, 8), schema=None):
        super().__init__(shape, {})
        self.anchor = nn.Parameter(torch.zeros(1))

    def turns(self, batch, step):
        yield {}

    def features(self, x):
        return x.flatten(1)


@pytest.mark.parametrize("verb", EDITS)
def test_a_model_without_a_decoder_is_refused_by_the_capabilitys_name(verb):
    given = [Given("a", torch.zeros(1, 8, 8), None, {})] * 3
    with pytest.raises(BadInput, match=r"Deaf has no `decode` \(it has: features\)"):
        Subject("deaf", Deaf(), given, {}, Manner())
    with pytest.raises(BadInput, match="Deaf has no `decode`"):
        last(invert(Deaf(), torch.zeros(1, 1, 8, 8)))


def test_an_encoder_that_is_missing_is_named_with_the_remedy():
    case = next(c for c in CASES if c.path == "gan.GAN" and c.data == "8px")
    with pytest.raises(BadInput, match=r"GAN has no `encode` .*`invert`"):
        Space(case.build()).encode(case.batch(2).x)
