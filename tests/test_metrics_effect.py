"""Whether the named number alone is obeyed: painters that obey, obey half or another number; against the judge's own readings."""

import numpy as np
import pytest
import torch

from condgen.errors import BadInput
from condgen.evaluation import judge as judging
from condgen.evaluation.effect import ROWS, attribute_effect, effect_of
from condgen.evaluation.measuring import Measuring
from condgen.evaluation.protocols import chosen, evaluate
from painter import RUN, SCHEMA, SHAPE, TEST, TRAIN, Painter, painted


class Painting(Painter):
    """Paints `level` as much as `share` times what is asked, and the rest from `otherwise`."""

    def __init__(self, shape=SHAPE, schema=None, share=1.0, otherwise=0.0):
        super().__init__(shape, schema)
        self.share, self.otherwise = share, otherwise

    def decode(self, z, c):
        level = 0.5 + self.share * (c["traits"][:, :1] - 0.5) + self.otherwise * (c["traits"][:, 1:2] - 0.5)
        return painted({**c, "traits": level}, z)


def measured(**model):
    return attribute_effect(Measuring(Painting(**model), RUN, n=50, train=TRAIN, test=TEST))


def test_an_obedient_painter_is_near_one_and_the_rest_in_proportion():
    found = measured()
    assert list(found) == ["attribute_effect", "attribute_effect/level"]  # `useless` cannot be read, `constant` does not vary
    whole, part = found.values()
    assert 0.7 < part.value < 1.1 and part.value == whole.value and part.ceiling == 1.0 and part.n == ROWS
    assert 0 < part.standard_error < 0.02
    assert measured(share=0.5)["attribute_effect"].value == pytest.approx(part.value / 2, abs=0.08)
    assert measured(share=0.0)["attribute_effect"].value == 0
    assert measured(share=-1.0)["attribute_effect"].value == pytest.approx(-part.value, abs=0.1)


def test_what_listens_to_another_number_does_nothing_by_this_one():
    assert measured(share=0.0, otherwise=1.0)["attribute_effect"].value == 0


def test_it_is_the_difference_of_two_readings_over_the_difference_asked():
    """By hand, row by row: `level` at 0 and at 1, the same noise, all other conditions as in the rows."""
    m = Measuring(Painting(), RUN, n=50, train=TRAIN, test=TEST)
    z = Painting().noise
    z.seed(0)
    noise = z.normal(200, 256)
    low, high = ({**TEST.c, "traits": torch.full((200, 1), to)} for to in (0.0, 1.0))
    expected = m.judge.predict(painted(high, noise), "traits")[:, 0] - m.judge.predict(painted(low, noise), "traits")[:, 0]
    assert torch.allclose(effect_of(m, m.model, "traits", 0), expected.double(), atol=1e-5)


def test_provenance_and_choice():
    found = evaluate(Painting(), RUN, metrics=["attribute_effect"], n=50, train=TRAIN, test=TEST)["metrics"]
    said, part = (found[name]["provenance"] for name in ("attribute_effect", "attribute_effect/level"))
    assert said.startswith("attribute_effect|judge-v2:") and "|n=200 test rows|" in said and "|same latents|" in said
    assert "|read 1 of 3, from 0.3 on real rows|ceiling=1 by definition, the judge's slope on real rows 0." in said
    slope = np.polyfit(TEST.c["traits"][:, 0], judging.judge_for(TRAIN, TEST).predict(TEST.x, "traits")[:, 0], 1)[0]
    assert f"on real rows {slope:.2f}|control=untrained model|s.e.=" in said
    assert "read 1" not in part and "|ceiling=1 by definition|" in part
    assert "attribute_effect" not in chosen(Painter(), None)
    with pytest.raises(BadInput, match="reads no attributes"):
        chosen(Painter(schema={"look": SCHEMA["look"]}), ["attribute_effect"])


def test_the_control_is_the_model_untrained():
    """Built anew from its options, this painter obeys as the trained one does; one whose training it was to obey does not."""

    class Learnt(Painter):
        taught = False

        def decode(self, z, c):
            return painted({**c, "traits": c["traits"] if self.taught else torch.full_like(c["traits"], 0.5)}, z)

    model = Learnt()
    model.taught = True
    found = attribute_effect(Measuring(model, RUN, n=50, train=TRAIN, test=TEST))["attribute_effect"]
    assert found.value > 0.7 and found.control == 0


def test_a_judge_that_reads_nothing_is_no_judge(monkeypatch):
    monkeypatch.setattr(judging.Judge, "predict", lambda self, x, name: torch.zeros(len(x), *SCHEMA[name].shape))
    with pytest.raises(BadInput, match="reads none of level, useless, constant"):
        measured()
