"""Conditions are data: they survive JSON, their words survive `parse` and `say`, and what they refuse they name."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from condgen.asking import complete
from condgen.conditions import (
    Attributes,
    Box,
    Condition,
    Keypoints,
    Label,
    Picture,
    Text,
    Vector,
    check_values,
    kinds,
    parse,
    say,
    schema_from_json,
    schema_to_json,
)
from condgen.errors import BadInput, unknown

SCHEMA = {
    "digit": Label(("zero", "one", "seven")),
    "face": Attributes(("smile", "age"), (0.0, 18.0), (1.0, 90.0), (True, False)),
    "look": Vector(3),
    "caption": Text(24),
    "box": Box(),
    "pose": Keypoints(("hand", "foot")),
    "map": Picture((1, 4, 6)),
}
ROWS = {name: c.uniform(5, torch.Generator().manual_seed(1)) for name, c in SCHEMA.items()}
each_kind = pytest.mark.parametrize("name", SCHEMA)


# --- descriptions -----------------------------------------------------------------------------------------------------------


def test_every_kind_here_is_tested():
    ours = {k for k, cls in kinds().items() if cls.__module__ == "condgen.conditions"}
    assert ours == {type(c).__name__ for c in SCHEMA.values()}


def test_a_schema_survives_json():
    written = json.loads(json.dumps(schema_to_json(SCHEMA)))
    assert schema_from_json(written) == SCHEMA
    assert list(schema_from_json(written)) == list(SCHEMA), "the order of conditions decides the order of features"
    assert schema_from_json({}) == {}


@each_kind
def test_even_draws_are_valid_and_follow_the_generator(name):
    c = SCHEMA[name]
    a, b = (c.uniform(200, torch.Generator().manual_seed(4)) for _ in range(2))
    assert a.shape == (200, *c.shape) and a.dtype == c.dtype and torch.equal(a, b)
    assert c.problem(a) is None
    assert not torch.equal(a, c.uniform(200, torch.Generator().manual_seed(5)))


def test_even_draws_reach_all_that_is_valid():
    assert set(SCHEMA["digit"].uniform(100).tolist()) == {0, 1, 2}
    face = SCHEMA["face"].uniform(500)
    assert set(face[:, 0].tolist()) == {0.0, 1.0} and face[:, 1].min() < 22 and face[:, 1].max() > 86


@pytest.mark.parametrize(
    "data, says",
    [
        ({"a": {"kind": "Lable", "names": ["x"]}}, "'Lable': did you mean 'Label'"),
        ({"a": {"names": ["x"]}}, "Valid: "),
        ({"a": {"kind": "Vector", "dims": 3}}, "condition 'a': .*dims"),
        ({"a": {"kind": "Vector"}}, "condition 'a': .*dim"),
        ({"a": {"kind": "Attributes", "names": ["x", "y"], "low": [0.0]}}, "low has 1 entries for 2 names"),
        ({"a": {"kind": ["Label"]}}, "unknown kind"),
        ({"a": 3}, "condition 'a'"),
        ([], "schema"),
        ("schema", "schema"),
    ],
)
def test_a_schema_that_cannot_be_is_refused_in_words(data, says):
    with pytest.raises(BadInput, match=says):
        schema_from_json(data)


# --- what is wrong with values ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, values, says",
    [
        ("digit", torch.tensor([0, 3]), "row 1 holds index 3, valid are 0 to 2"),
        ("digit", torch.tensor([-1]), "row 0 holds index -1"),
        ("digit", torch.tensor([[0]]), r"shape \(n, \), got \(1, 1\)"),
        ("digit", torch.tensor([0.0, 1.0]), "int64"),
        ("caption", torch.zeros(2, 24), "uint8"),
        ("look", torch.tensor([[0.0, 1.0, math.inf]]), "row 0 .*not a finite number"),
        ("look", torch.zeros(2, 4), r"\(n, 3\), got \(2, 4\)"),
        ("face", torch.tensor([[1.0, 20.0], [0.0, math.nan]]), "row 1 .*not a finite number"),
        ("box", torch.tensor([[0.5, 0.5, 0.6, 0.1]]), "row 0: box 0.5,0.5,0.6,0.1 leaves the picture"),
        ("box", torch.tensor([[0.5, 0.5, 0.0, 0.1]]), "leaves the picture"),
        ("map", torch.zeros(2, 1, 6, 4), r"\(n, 1, 4, 6\)"),
        ("face", torch.tensor([[1.0, 20.0], [0.0, 400.0]]), "row 1: attribute 'age' is 400; the data ranges from 18 to 90"),
        ("pose", torch.tensor([[[0.5, 0.5, 1.0], [7.0, 0.5, 1.0]]]), r"row 0: point 'foot' is 7,0.5,1; expected x, y in \[-0.5, 1.5\]"),
        ("pose", torch.tensor([[[0.5, 0.5, 2.0], [0.0, 0.5, 1.0]]]), "row 0: point 'hand'"),
    ],
)
def test_what_is_wrong_is_named_with_its_row(name, values, says):
    with pytest.raises(BadInput, match=f"condition '{name}': .*{says}"):
        check_values({name: SCHEMA[name]}, {name: values})


def test_a_missing_condition_is_named_beside_what_was_given():
    with pytest.raises(BadInput, match="'digit' is missing; given: look"):
        check_values(SCHEMA, {"look": ROWS["look"]})


# --- words --------------------------------------------------------------------------------------------------------------------


@each_kind
def test_parse_reads_what_say_wrote(name):
    for value in ROWS[name]:
        again = parse(SCHEMA[name], say(SCHEMA[name], value))
        assert again.shape == value.shape
        assert torch.allclose(again.double(), value.double(), rtol=6e-3), "say writes three digits"


@given(st.text(max_size=24).filter(lambda s: len(s.encode("utf-8", "replace")) <= 24 and not s.endswith("\0")))
def test_any_text_survives(text):
    text = text.encode("utf-8", "replace").decode()
    value = parse(Text(24), text)
    assert value.shape == (24,) and value.dtype == torch.uint8 and say(Text(24), value) == text


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=3, max_size=3))
def test_a_vector_is_read_from_a_word_a_list_a_tuple_and_a_tensor(numbers):
    expected = torch.tensor(numbers)
    for word in (",".join(map(repr, numbers)), " ".join(map(repr, numbers)), numbers, tuple(numbers), expected, expected.numpy()):
        assert torch.equal(parse(Vector(3), word), expected)


def test_a_label_is_read_from_its_name_also_where_that_is_a_number():
    assert parse(SCHEMA["digit"], "seven").item() == 2
    assert parse(Label(("1", "7")), 7).item() == 1


def test_attributes_left_open_are_nan():
    value = parse(SCHEMA["face"], {"age": "30"})
    assert value[1] == 30 and value[0].isnan()
    assert parse(SCHEMA["face"], "age=30 smile=1").tolist() == [1, 30]
    assert parse(SCHEMA["face"], "1, 30").tolist() == [1, 30]


def test_an_attribute_may_go_a_little_beyond_the_data_and_no_further():
    assert parse(SCHEMA["face"], {"age": 100})[1] == 100
    with pytest.raises(BadInput, match="'age' is 400; the data ranges from 18 to 90"):
        parse(SCHEMA["face"], {"age": 400})


@pytest.mark.parametrize(
    "name, word, says",
    [
        ("digit", "sevn", "'sevn': did you mean 'seven'.* Valid: zero, one, seven"),
        ("digit", "", "Valid: zero, one, seven"),
        ("face", {"smille": 1}, "attribute 'smille': did you mean 'smile'.* Valid: smile, age"),
        ("face", "smille=1", "did you mean 'smile'"),
        ("face", "1", r"'1' is not 2 number\(s\)"),
        ("face", {"smile": "much"}, r"'much' is not 1 number\(s\)"),
        ("face", {"smile": None}, "not 1 number"),
        ("look", "1,2", r"'1,2' is not 3 number\(s\)"),
        ("look", "a,b,c", "is not 3 number"),
        ("look", {"x": 1}, "is not 3 number"),
        ("look", "1,2,nan", "not a finite number"),
        ("look", "1,2,1e99", "not a finite number"),
        ("caption", "x" * 25, "has 25 bytes; this condition reads at most 24"),
        ("caption", "ü" * 13, "has 26 bytes"),
        ("box", "0.5,0.5,0.9,0.1", r"box 0.5,0.5,0.9,0.1 leaves the picture \(x, y, w, h in \[0, 1\]\)"),
        ("box", "0.5,0.5,0.9", "is not 4 number"),
        ("pose", "1,2,1,0,0,0", "point 'hand' is 1,2,1"),
        ("pose", "1,2,3", r"is not 6 number\(s\) of shape \(2, 3\)"),
        ("map", "0", r"is not 24 number\(s\) of shape \(1, 4, 6\)"),
    ],
)
def test_a_word_that_cannot_be_is_refused_with_what_can(name, word, says):
    with pytest.raises(BadInput, match=says):
        parse(SCHEMA[name], word)


@given(
    st.sampled_from(list(SCHEMA.values())),
    st.one_of(st.text(), st.none(), st.lists(st.integers()), st.floats(), st.dictionaries(st.text(), st.text())),
)
def test_whatever_is_asked_is_a_valid_value_or_bad_input(condition, word):
    try:
        value = parse(condition, word)
    except BadInput:
        return
    assert tuple(value.shape) == condition.shape


# --- complete -----------------------------------------------------------------------------------------------------------------


def test_what_is_left_open_comes_from_rows_in_turn():
    values = complete(SCHEMA, {"digit": "seven"}, ROWS, 7)
    assert values["digit"].tolist() == [2] * 7
    assert torch.equal(values["look"], ROWS["look"][[0, 1, 2, 3, 4, 0, 1]])
    assert {k: (v.dtype, v.shape) for k, v in values.items()} == {k: (c.dtype, (7, *c.shape)) for k, c in SCHEMA.items()}


def test_one_attribute_leaves_the_others_to_the_rows():
    for asked in ({"smile": 1}, {"face": {"smile": 1}}, {"face": "smile=1"}):
        values = complete(SCHEMA, asked, ROWS, 3)["face"]
        assert values[:, 0].tolist() == [1, 1, 1] and torch.equal(values[:, 1], ROWS["face"][:3, 1])


def test_what_is_left_open_agrees_with_the_attributes_that_are_asked():
    g = torch.Generator().manual_seed(0)
    smile = (torch.rand(1000, generator=g) > 0.7).float()
    face = torch.stack([smile, 18 + 72 * torch.rand(1000, generator=g)], 1)
    rows = {"face": face, "look": smile[:, None].expand(-1, 3) + 0.01 * torch.randn(1000, 3, generator=g)}
    schema = {name: SCHEMA[name] for name in rows}
    smiling, plain = (complete(schema, {"smile": v}, rows, 50) for v in (1, 0))
    assert smiling["look"].mean() > 0.95 and abs(plain["look"].mean()) < 0.05, "a look that goes with the smile"
    assert (smiling["face"][:, 1] - rows["face"][:50, 1]).abs().mean() < 5, "and otherwise the row nearest to the sample's own"
    assert len(smiling["look"].unique(dim=0)) > 25
    whole = complete(schema, {"face": face[:50]}, rows, 50)
    assert torch.equal(whole["look"], rows["look"][:50]), "where everything is asked, rows are taken in turn"


def test_what_is_left_open_comes_from_rows_of_the_label_that_is_asked():
    g = torch.Generator().manual_seed(0)
    kind = torch.arange(300) % 3
    size = torch.rand(300, generator=g) / 3 + kind / 3  # the third kind is the largest: alone it would give every large row
    schema = {"animal": Label(("dog", "cat", "horse", "gnu")), "body": Attributes(("size", "fur")), "look": Vector(1)}
    rows = {"animal": kind, "body": torch.stack([size, torch.rand(300, generator=g)], 1), "look": torch.arange(300.0)[:, None]}

    def kinds_of(asked: dict, n: int) -> list[int]:
        return kind[complete(schema, asked, rows, n)["look"][:, 0].long()].tolist()

    assert kinds_of({"size": 0.9}, 40) == [2] * 40
    assert kinds_of({"animal": "dog", "size": 0.9}, 40) == [0] * 40
    assert kinds_of({"animal": ["dog", "cat"] * 80, "size": 0.9}, 160) == [0, 1] * 80, "each sample has its own, also over chunks"
    assert kinds_of({"animal": "gnu", "size": 0.9}, 40) == [2] * 40, "no row is a gnu's: all are looked at"
    large = complete(schema, {"animal": "dog", "size": 0.9}, rows, 40)["look"][:, 0].long()
    assert size[large].min() >= size[kind == 0].sort().values[-20], "of the dogs the twenty largest"
    few = {k: v[:5] for k, v in rows.items()}
    assert set(complete(schema, {"animal": "dog", "size": 0.9}, few, 9)["look"][:, 0].tolist()) <= {0.0, 3.0}


def test_single_attributes_join_what_is_asked_of_their_condition():
    asked = {"face": {"age": 30}, "smile": 1}
    assert complete(SCHEMA, asked, ROWS)["face"].tolist() == [[1, 30]]
    assert asked == {"face": {"age": 30}, "smile": 1}, "what the caller gave stays as it was"
    for both in ({"face": "0,30", "smile": 1}, {"smile": 1, "face": torch.tensor([0.0, 30.0])}, {"face": {"smile": 0}, "smile": 1}):
        with pytest.raises(BadInput, match="attribute 'smile' is asked twice"):
            complete(SCHEMA, both, ROWS)


@pytest.mark.parametrize("ages", [[20, 30, 40], ["20", "30", "40"], torch.tensor([20.0, 30.0, 40.0])], ids=["numbers", "words", "tensor"])
def test_an_attribute_may_differ_from_sample_to_sample(ages):
    values = complete(SCHEMA, {"age": ages, "smile": 1}, ROWS)["face"]
    assert values.tolist() == [[1, 20], [1, 30], [1, 40]]


@pytest.mark.parametrize(
    "asked, expected",
    [
        ({"digit": ["one", "seven"]}, [1, 2]),
        ({"digit": ("one", "seven")}, [1, 2]),
        ({"digit": np.array(["one", "seven"])}, [1, 2]),
        ({"digit": np.array("one")}, [1]),
        ({"digit": torch.tensor([1, 2])}, [1, 2]),
        ({"digit": torch.tensor(1)}, [1]),
        ({"digit": "one", "look": torch.zeros(2, 3)}, [1, 1]),
        ({"digit": ["one", "seven"], "look": [0.0, 0.0, 0.0]}, [1, 2]),
        ({"digit": "one", "look": ["0 0 0", "1 1 1"]}, [1, 1]),
        ({"digit": "one", "look": [[0, 0, 0], (1, 1, 1)]}, [1, 1]),
        ({}, [int(ROWS["digit"][0])]),
    ],
)
def test_lists_and_tensors_say_how_many(asked, expected):
    assert complete(SCHEMA, asked, ROWS)["digit"].tolist() == expected


@pytest.mark.parametrize(
    "asked, n, says",
    [
        ({}, 0, "cannot make 0 samples"),
        ({}, -3, "cannot make -3 samples"),
        ({"digit": []}, None, "cannot make 0 samples|no value"),
        ({"digit": ["one", "seven"]}, 3, "asked for 3 samples, but digit has 2 values"),
        ({"digit": ["one", "seven"], "look": torch.zeros(3, 3)}, None, "asked for 3 samples, but digit has 2 values"),
        ({"smile": [0, 1]}, 3, "asked for 3 samples, but face has 2 values"),
        ({"smile": [0, 1], "age": [20, 30, 40]}, None, "smile has 2 values, age has 3|age has 3 values.* smile 2"),
        ({"look": torch.zeros(4)}, None, r"'look': expected .*\(3,\).* got \(4,\)"),
        ({"look": torch.zeros(2, 4)}, None, r"'look': expected .*\(3,\).* got \(2, 4\)"),
        ({"look": torch.zeros(1, 2, 3)}, None, r"'look': expected"),
        ({"digit": torch.tensor([1.7, 0.0])}, None, "'digit': expected whole numbers, such as torch.int64, got torch.float32"),
        ({"digit": torch.tensor([True, False])}, None, "'digit': expected whole numbers, .* got torch.bool"),
        ({"digit": np.array(["one", "sevn"])}, None, "'sevn': did you mean 'seven'"),
        ({"digit": ()}, None, "no value"),
        ({"face": torch.tensor([0.0, 400.0])}, None, "'face': row 0: attribute 'age' is 400"),
        ({"digit": torch.tensor([5])}, None, "'digit': row 0 holds index 5, valid are 0 to 2"),
        ({"box": torch.tensor([0.9, 0.0, 0.5, 0.5])}, None, "leaves the picture"),
        ({"digt": "one"}, None, "unknown condition 'digt': did you mean 'digit'.*smile, age"),
        ({"smil": 1}, None, "did you mean 'smile'"),
    ],
)
def test_what_cannot_be_completed_is_refused_by_name(asked, n, says):
    with pytest.raises(BadInput, match=says):
        complete(SCHEMA, asked, ROWS, n)


def test_a_range_names_labels_that_are_numbers():
    schema = {"digit": Label(tuple("0123"))}
    assert complete(schema, {"digit": range(1, 4)}, {"digit": torch.tensor([0])})["digit"].tolist() == [1, 2, 3]


def test_values_are_the_callers_own():
    values = complete(SCHEMA, {"digit": torch.tensor([1, 2])}, ROWS)
    values["digit"].zero_()
    values["look"].zero_()
    assert ROWS["look"].abs().sum() > 0


# --- errors -------------------------------------------------------------------------------------------------------------------


def test_an_unknown_name_is_told_the_nearest_and_no_endless_list():
    text = str(unknown("fish", "salmn", [*(f"fish-{i}" for i in range(40)), "salmon"]))
    assert "did you mean 'salmon'" in text and "(41 in all)" in text and len(text) < 250
    assert "Valid: none" in str(unknown("fish", "salmon", []))


@pytest.mark.parametrize(
    ("what", "names_all"),
    [
        ("metric", "condgen list metrics"),
        ("label", "condgen describe RUN"),
        ("option of ae.AE", "condgen describe MODEL"),
        ("fish", "list"),
    ],
)
def test_a_list_that_is_cut_ends_with_what_names_all(what, names_all):
    assert names_all in str(unknown(what, "salmn", range(13))).split("(13 in all)")[1]
    assert "condgen" not in str(unknown(what, "salmn", range(12)))


def test_a_condition_is_found_by_its_name_alone():
    class Tint(Condition):
        @property
        def shape(self):
            return ()

        def uniform(self, n, generator=None):
            return torch.rand(n, generator=generator)

    assert kinds()["Tint"] is Tint
    assert parse(Tint(), "0.25").item() == 0.25 and say(Tint(), torch.tensor(0.25)) == "0.25"
