"""A person's own folders, zips and arrays: what is read, what is inferred, what is refused."""

import csv
import io
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from condgen.conditions import Attributes, Box, Condition, Keypoints, Label, Picture, Text, Vector, parse, say, schema_to_json
from condgen.data import load
from condgen.data.survey import held_out_by_name
from condgen.errors import BadInput


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONDGEN_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "set").mkdir()
    return tmp_path / "set"


def pixels(seed: int, side: int = 8, channels: int = 3) -> np.ndarray:
    shape = (side, side, channels) if channels > 1 else (side, side)
    return np.random.Generator(np.random.PCG64(seed)).integers(0, 256, shape, dtype=np.uint8)


def draw(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def metadata(folder: Path, rows: list[dict], kind: str = "csv") -> None:
    if kind == "jsonl":
        (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    elif kind == "parquet":
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "metadata.parquet")
    else:
        with (folder / "metadata.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows({k: json.dumps(v) if isinstance(v, (list, dict)) else v for k, v in row.items()} for row in rows)


def rows_of(n: int) -> list[dict]:
    """A row for each picture with every kind of column."""
    return [
        {
            "file_name": f"{i}.png",
            "kind": ("cat", "dog")[i % 2],
            "caption": f"picture number {i}",
            "smile": i % 2,
            "age": 20 + i,
            "bbox": [1, 2, 4, 4],
            "keypoints": [[2, 4, 1], [8, 8, 0]],
            "style": [0.5, -float(i), 2],
        }
        for i in range(n)
    ]


def all_of(source: Path, **options) -> dict[str, tuple[np.ndarray, dict]]:
    """Pictures and values of both splits, joined."""
    parts = [load(str(source), split, **options) for split in ("train", "test")]
    values = {k: torch.cat([p.values()[k] for p in parts]) for k in parts[0].schema}
    return np.concatenate([p.pictures() for p in parts]), values


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_metadata_becomes_conditions(folder, kind):
    n = 12
    for i in range(n):
        draw(folder / f"{i}.png", pixels(i))
    metadata(folder, rows_of(n), kind)
    data = load(str(folder))
    assert data.schema == {
        "kind": Label(("cat", "dog")),
        "caption": Text(24),
        "box": Box(),
        "keypoints": Keypoints(("0", "1")),
        "style": Vector(3),
        "attributes": Attributes(("smile", "age"), (0, 20), (1, 31), (True, False)),
    }
    pictures, values = all_of(folder)
    assert len(pictures) == n
    for row, picture in enumerate(pictures):
        i = int(say(Text(24), values["caption"][row]).rsplit(" ", 1)[1])
        assert np.array_equal(picture, pixels(i)), "the values are another picture's"
        assert values["kind"][row] == i % 2
        assert values["attributes"][row].tolist() == [i % 2, 20 + i]
        assert values["style"][row].tolist() == [0.5, -i, 2]
        assert torch.allclose(values["box"][row], torch.tensor([1, 2, 4, 4]) / 8)
        assert values["keypoints"][row].tolist() == [[0.25, 0.5, 1], [0, 0, 0]]
    notes = " ".join(data.notes)
    for said in ("'kind' -> Label", "'caption' -> Text", "Attributes of 2: smile (0 or 1), age", "held out", "12 pictures of 8x8 px, RGB"):
        assert said in notes, said


def test_a_zip_gives_the_same(folder, tmp_path):
    for i in range(8):
        draw(folder / f"{i}.png", pixels(i))
    metadata(folder, rows_of(8))
    with ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in folder.iterdir():
            archive.write(path, f"set/{path.name}")
    for split in ("train", "test"):
        assert load(str(folder), split).fingerprint == load(str(tmp_path / "set.zip"), split).fingerprint


def classes(folder: Path, n: int = 20, side: int = 8) -> None:
    for i in range(n):
        draw(folder / ("ant", "bee")[i % 2] / f"{i}.png", pixels(i, side))


def test_class_folders(folder):
    classes(folder)
    data = load(str(folder))
    assert data.schema == {"label": Label(("ant", "bee"))}
    pictures, values = all_of(folder)
    known = {pixels(i).tobytes(): i % 2 for i in range(20)}
    assert [known[p.tobytes()] for p in pictures] == values["label"].tolist()


def test_split_folders_and_a_split_column(folder, tmp_path):
    for i in range(10):
        draw(folder / ("train" if i < 7 else "test") / ("ant", "bee")[i % 2] / f"{i}.png", pixels(i))
    assert (len(load(str(folder))), len(load(str(folder), "test"))) == (7, 3)
    assert load(str(folder)).schema == {"label": Label(("ant", "bee"))}
    other = tmp_path / "other"
    for i in range(6):
        draw(other / f"{i}.png", pixels(i))
    metadata(other, [{"file_name": f"{i}.png", "split": ("train", "val")[i > 3], "label": i % 2} for i in range(6)])
    assert (len(load(str(other))), len(load(str(other), "validation"))) == (4, 2)
    assert load(str(other)).schema == {"label": Label(("0", "1"))}
    assert len(load(str(other), "test")) == 2, "where there is no test, validation takes its place"
    with pytest.raises(BadInput, match="train, validation"):
        load(str(other), "tset")


def test_metadata_in_split_folders(folder):
    for split, n in (("train", 5), ("test", 2)):
        for i in range(n):
            draw(folder / split / f"{i}.png", pixels(i))
        metadata(folder / split, [{"file_name": f"{i}.png", "age": i} for i in range(n)])
    assert load(str(folder)).values()["attributes"][:, 0].tolist() == [0, 1, 2, 3, 4]
    assert load(str(folder), "test").values()["attributes"][:, 0].tolist() == [0, 1]


def test_stylegan_labels(folder):
    for i in range(6):
        draw(folder / "00000" / f"{i}.png", pixels(i))
    (folder / "dataset.json").write_text(json.dumps({"labels": [[f"00000/{i}.png", i % 3] for i in range(6)]}))
    assert load(str(folder)).schema == {"label": Label(("0", "1", "2"))}
    (folder / "dataset.json").write_text(json.dumps({"labels": None}))
    assert load(str(folder)).schema == {}


def test_pictures_alone(folder):
    for i in range(30):
        draw(folder / f"{i}.png", pixels(i))
    train, test = load(str(folder)), load(str(folder), "test")
    assert train.schema == {} and len(train) + len(test) == 30 and len(test) >= 1


def test_held_out_is_stable_and_leaves_every_class_in_train():
    names = [f"{i}.png" for i in range(2000)]
    out = held_out_by_name(names, [0] * 2000)
    assert 150 < sum(out) < 250
    assert held_out_by_name(names[:1000], [0] * 1000) == out[:1000], "adding pictures moves no other"
    assert not any(held_out_by_name(names[:300], range(300)))
    twice = held_out_by_name([n for n in names for _ in range(2)], [0] * 4000)
    assert twice[::2] == twice[1::2], "captions of one picture stay together"


@pytest.mark.parametrize("n", [20, 40, 60, 100])
def test_a_small_set_holds_out_its_tenth(n):
    for prefix in "abcdefgh":
        names = [f"{prefix}{i}.png" for i in range(n)]
        out = held_out_by_name(names, [i % 2 for i in range(n)])
        more = held_out_by_name([*names, "one-more.png"], [i % 2 for i in range(n + 1)])
        assert sum(out) >= n // 10
        assert sum(a != b for a, b in zip(out, more, strict=False)) <= 1, "adding a picture moves few others"


# --- pictures of all sorts ---


def test_gray_files_give_one_channel_whatever_their_mode(folder):
    gray = pixels(0, channels=1)
    Image.fromarray(gray).save(folder / "a.png")
    Image.fromarray(gray).convert("RGB").save(folder / "b.png")
    Image.fromarray(gray.astype(np.uint16) * 257).save(folder / "c.png")
    pictures, _ = all_of(folder)
    assert pictures.shape == (3, 8, 8, 1) and (pictures[..., 0] == gray).all()
    draw(folder / "d.png", pixels(1))
    assert all_of(folder)[0].shape == (4, 8, 8, 3)


def test_mixed_sizes_need_a_size(folder):
    classes(folder)
    draw(folder / "ant" / "big.png", pixels(99, side=40))
    with pytest.raises(BadInput, match=r"has 8x8 px, ant/big\.png has 40x40.*--size 8"):
        load(str(folder))
    data = load(str(folder), size=16)
    assert data.shape == (3, 16, 16)
    assert any("21 were cropped" in note for note in data.notes)


def test_equal_oblong_pictures_keep_their_shape(folder):
    for i in range(3):
        draw(folder / f"{i}.png", pixels(i)[:5])
    assert load(str(folder)).shape == (3, 5, 8)
    assert load(str(folder), size=4).shape == (3, 4, 4)


def test_positions_follow_the_crop(folder):
    wide = np.zeros((10, 30, 3), np.uint8)
    for i in range(4):
        draw(folder / f"{i}.png", wide + i)
    rows = [{"file_name": f"{i}.png", "bbox": [15, 5, 10, 5], "keypoints": [[12, 5, 1], [1, 1, 1]]} for i in range(4)]
    metadata(folder, rows, "jsonl")
    whole, cropped = load(str(folder)).values(), load(str(folder), size=8).values()
    assert torch.allclose(whole["box"][0], torch.tensor([15 / 30, 0.5, 10 / 30, 0.5]))
    assert torch.allclose(cropped["box"][0], torch.tensor([0.5, 0.5, 0.5, 0.5])), "px 15 to 20 of the square from 10 to 20"
    assert torch.allclose(cropped["keypoints"][0], torch.tensor([[0.2, 0.5, 1], [0, 0, 0]])), "the second point is cropped away"


def test_relative_positions_stay(folder):
    for i in range(3):
        draw(folder / f"{i}.png", pixels(i))
    metadata(folder, [{"file_name": f"{i}.png", "bbox": "0.25 0.5 0.5 0.25"} for i in range(3)])
    assert load(str(folder)).values()["box"][0].tolist() == [0.25, 0.5, 0.5, 0.25]


def test_another_picture_as_condition(folder):
    for i in range(5):
        draw(folder / f"{i}.png", pixels(i))
        draw(folder / "edges" / f"{i}.png", pixels(100 + i, channels=1))
    metadata(folder, [{"file_name": f"{i}.png", "edge_file_name": f"edges/{i}.png"} for i in range(5)])
    data = load(str(folder))
    assert data.schema == {"edge": Picture((1, 8, 8))}
    known = {pixels(i).tobytes(): pixels(100 + i, channels=1) for i in range(5)}
    for row, picture in enumerate(data.pictures()):
        expected = torch.from_numpy(known[picture.tobytes()]).float() / 127.5 - 1
        assert torch.allclose(data.values([row])["edge"][0, 0], expected)
    assert load(str(folder), size=4).values()["edge"].shape[1:] == (1, 4, 4)
    (folder / "edges" / "3.png").unlink()
    with pytest.raises(BadInput, match=r"line 5: edge: 'edges/3\.png' cannot be read"):
        load(str(folder))


# --- schemas ---


def test_a_schema_file_overrides(folder):
    for i in range(6):
        draw(folder / f"{i}.png", pixels(i))
    metadata(folder, [{"file_name": f"{i}.png", "mood": ("sad", "glad")[i % 2], "age": i} for i in range(6)])
    assert set(load(str(folder)).schema) == {"mood", "attributes"}
    schema = {"mood": Label(("glad", "sad"))}
    (folder / "schema.json").write_text(json.dumps(schema_to_json(schema)))
    by_file = load(str(folder))
    assert by_file.schema == schema
    (folder / "schema.json").unlink()
    assert load(str(folder), schema=schema).fingerprint == by_file.fingerprint
    with pytest.raises(BadInput, match=r"line 2: mood: unknown label 'sad'"):
        load(str(folder), schema={"mood": Label(("glad", "angry"))})
    with pytest.raises(BadInput, match="'mod' has no column"):
        load(str(folder), schema={"mod": Label(("glad", "sad"))})


def test_a_class_that_only_an_outer_schema_names_is_no_reason_to_refuse(folder):
    classes(folder)
    data = load(str(folder), schema={"label": Label(("ant", "bee", "cow"))})
    assert any("'cow'" in note for note in data.notes)


@dataclass(frozen=True)
class Tone(Condition):
    """A pitch in Hz: a kind that the data layer has never heard of."""

    @property
    def shape(self) -> tuple[int, ...]:
        return (1,)

    def uniform(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        return torch.rand(n, 1, generator=generator)


@parse.register
def _(condition: Tone, word) -> Tensor:
    return torch.tensor([440 * 2 ** ("CDEFGAB".index(word) / 7)])


def test_a_new_kind_of_condition_needs_no_change_here(folder, tmp_path):
    for i in range(4):
        draw(folder / f"{i}.png", pixels(i))
    metadata(folder, [{"file_name": f"{i}.png", "tone": "CDCD"[i]} for i in range(4)])
    (folder / "schema.json").write_text('{"tone": {"kind": "Tone"}}')
    data = load(str(folder))
    assert data.schema == {"tone": Tone()}
    assert sorted(all_of(folder)[1]["tone"][:, 0].tolist()) == pytest.approx([440.0, 440.0, 440 * 2 ** (1 / 7), 440 * 2 ** (1 / 7)])
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 3, 3), np.uint8), tone=np.array(list("CDCD")))
    assert load(str(tmp_path / "a.npz"), schema={"tone": Tone()}).values()["tone"].shape[1:] == (1,)


def test_what_is_inferred_from_odd_columns(folder):
    n = 8
    for i in range(n):
        draw(folder / f"{i}.png", pixels(i))
    odd = [
        {"file_name": f"{i}.png", "id": i, "same": "x", "empty": "", "class": i % 3, "glad": ("true", "false")[i % 2], "label_smile": i % 2}
        for i in range(n)
    ]
    metadata(folder, odd)
    data = load(str(folder))
    assert data.schema["class"] == Label(("0", "1", "2"))
    assert data.schema["attributes"].names == ("glad", "label_smile") and data.schema["attributes"].binary == (True, True)
    notes = " ".join(data.notes)
    assert "'id' is left out: it numbers the rows" in notes and "'same' is left out" in notes and "'empty' is left out" in notes


def test_mappings_of_attributes_and_named_points(folder):
    for i in range(4):
        draw(folder / f"{i}.png", pixels(i))
    points = {"eye": [2, 2, 1], "nose": [4, 4, 0]}
    rows = [{"file_name": f"{i}.png", "looks": {"smile": i % 2, "age": 30 + i}, "keypoints": points} for i in range(4)]
    metadata(folder, rows, "jsonl")
    data = load(str(folder))
    assert data.schema["looks"] == Attributes(("smile", "age"), (0, 30), (1, 33), (True, False))
    assert data.schema["keypoints"] == Keypoints(("eye", "nose"))


def test_long_texts_are_cut_at_a_letter_and_counted(folder):
    for i in range(3):
        draw(folder / f"{i}.png", pixels(i))
    metadata(folder, [{"file_name": f"{i}.png", "caption": f"{i}" + "é" * (200 if i else 3)} for i in range(3)])
    data = load(str(folder))
    assert data.schema == {"caption": Text(256)}
    assert any("2 texts of 'caption' are cut to 256 bytes" in note for note in data.notes)
    said = {say(Text(256), v) for v in all_of(folder)[1]["caption"]}
    assert said == {"0ééé", "1" + "é" * 127, "2" + "é" * 127}


# --- arrays ---


def test_arrays(tmp_path):
    n = 10
    x = np.stack([pixels(i) for i in range(n)])
    arrays = {
        "digit": np.arange(n) % 3,
        "word": np.array(["red", "blue"] * 5),
        "attributes": np.linspace(0, 1, 2 * n, dtype=np.float32).reshape(n, 2),
        "glow": np.linspace(-1, 1, n),
        "code": np.random.Generator(np.random.PCG64(0)).normal(size=(n, 5)).astype(np.float32),
        "box": np.tile([0.1, 0.2, 0.5, 0.5], (n, 1)),
        "pose": np.zeros((n, 4, 4, 3), np.uint8),
        "text": np.stack([parse(Text(16), f"no {i}").numpy() for i in range(n)]),
    }
    np.savez(tmp_path / "a.npz", x=x, split=np.array(["train"] * 7 + ["test"] * 3), **arrays)
    data = load(str(tmp_path / "a.npz"))
    kinds = {k: type(c).__name__ for k, c in data.schema.items()}
    assert kinds == {
        "digit": "Label",
        "word": "Label",
        "attributes": "Attributes",
        "glow": "Attributes",
        "code": "Vector",
        "box": "Box",
        "pose": "Picture",
        "text": "Text",
    }
    assert (len(data), len(load(str(tmp_path / "a.npz"), "test"))) == (7, 3)
    assert np.array_equal(data.pictures(), x[:7])
    values = data.values()
    assert values["digit"].tolist() == [0, 1, 2, 0, 1, 2, 0] and values["word"].tolist() == [1, 0, 1, 0, 1, 0, 1]
    assert np.allclose(values["code"], arrays["code"][:7]) and np.allclose(values["glow"][:, 0], arrays["glow"][:7])
    assert say(Text(16), values["text"][4]) == "no 4"


@pytest.mark.parametrize(("low", "said"), [(0, r"[0, 1]"), (-1, r"[-1, 1]")])
def test_float_pictures(tmp_path, low, said):
    x = np.linspace(low, 1, 2 * 4 * 4, dtype=np.float32).reshape(2, 4, 4)
    np.savez(tmp_path / "a.npz", x=x)
    pictures, _ = all_of(tmp_path / "a.npz")
    assert (pictures.min(), pictures.max(), pictures.shape) == (0, 255, (2, 4, 4, 1))
    assert any(said in note for note in load(str(tmp_path / "a.npz")).notes)


def test_points_and_sizes_of_arrays(tmp_path):
    points = np.random.Generator(np.random.PCG64(0)).normal(size=(50, 3))
    np.savez(tmp_path / "p.npz", x=points)
    assert load(str(tmp_path / "p.npz")).shape == (3,)
    with pytest.raises(BadInput, match="points have no size"):
        load(str(tmp_path / "p.npz"), size=8)
    np.savez(tmp_path / "a.npz", x=np.stack([pixels(i) for i in range(4)])[:, :, 1:7], box=np.tile([0.5, 0.25, 0.5, 0.5], (4, 1)))
    data = load(str(tmp_path / "a.npz"), size=4)
    assert data.shape == (3, 4, 4)
    assert torch.allclose(data.values()["box"][0], torch.tensor([0.5, 1 / 6, 0.5, 4 / 6])), "px 2 to 6 of the rows 1 to 7"


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": np.zeros(3)}, "'x' is missing"),
        ({"x": np.zeros((0, 4, 4), np.uint8)}, "no rows"),
        ({"x": np.zeros((3, 3, 8, 8), np.uint8)}, "transpose"),
        ({"x": np.zeros((3, 8, 8), np.int64)}, "expected uint8 or float"),
        ({"x": np.full((3, 8, 8), 77.0)}, "values from 77 to 77"),
        ({"x": np.full((3, 8, 8), np.nan)}, "values from nan"),
        ({"x": np.zeros((3, 8, 8), np.uint8), "digit": np.arange(4)}, "x has 3 rows, but digit has 4"),
        ({"x": np.zeros((3, 8, 8), np.uint8), "age": np.array([1.5, np.nan, 2])}, r"row 1: age.*nan"),
        ({"x": np.zeros((3, 8, 8), np.uint8), "box": np.tile([0.5, 0.5, 0.9, 0.2], (3, 1))}, r"row 0: box.*leaves the picture"),
        ({"x": np.array([[0.0, 1], [np.inf, 2], [3, 4]])}, "row 1: x holds"),
    ],
)
def test_arrays_that_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(BadInput, match=message):
        load(str(tmp_path / "a.npz"))


# --- the same again, and changes ---


def test_loading_twice_is_the_same_and_reads_no_picture_again(folder, monkeypatch):
    classes(folder)
    first = load(str(folder)).fingerprint
    monkeypatch.setattr("condgen.data.sources.survey", lambda *_: pytest.fail("it was prepared again"))
    assert load(str(folder)).fingerprint == first


def test_the_place_does_not_matter_but_every_change_does(folder, tmp_path):
    classes(folder)
    first = load(str(folder)).fingerprint
    shutil.copytree(folder, tmp_path / "moved")
    assert load(str(tmp_path / "moved")).fingerprint == first
    seen = {first}
    one = next(path for path in sorted(folder.rglob("*.png")) if "held" not in path.name)
    draw(one, pixels(0) ^ 1)
    for split in ("train", "test"):
        seen.add(load(str(folder), split).fingerprint)
    assert len(seen) == 3
    (folder / "ant" / "2.png").rename(folder / "bee" / "2.png")
    seen |= {load(str(folder), split).fingerprint for split in ("train", "test")}
    assert len(seen) >= 4
    assert load(str(folder), schema={}).fingerprint not in seen


# --- bad input ---


def test_a_picture_that_cannot_be_read_is_named_and_can_be_skipped(folder):
    classes(folder)
    path = folder / "ant" / "0.png"
    path.write_bytes(path.read_bytes()[:120])
    (folder / "bee" / "1.png").write_bytes(b"no picture")
    with pytest.raises(BadInput, match=r"2 problems") as caught:
        load(str(folder))
    for said in ("ant/0.png", "bee/1.png", "skip-bad"):
        assert said in str(caught.value)
    data = load(str(folder), skip_bad=True)
    assert len(data) + len(load(str(folder), "test", skip_bad=True)) == 18
    assert any("skipped 2 of 20 samples: 2 unreadable" in note for note in data.notes)
    known = {pixels(i).tobytes() for i in range(2, 20)}
    assert {p.tobytes() for p in all_of(folder, skip_bad=True)[0]} == known


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"age": "nan"}, r"metadata\.csv line 4: attributes: age is 'nan'"),
        ({"age": ""}, r"metadata\.csv line 4: attributes: age is ''"),
        ({"bbox": [5, 5, 9, 2]}, r"metadata\.csv line 4: box: box 5,5,9,2 leaves the picture of 8x8 px"),
        ({"bbox": [1, 1, 0, 2]}, r"line 4: box: box 1,1,0,2 leaves"),
        ({"kind": ""}, r"line 4: kind: the cell is empty"),
        ({"file_name": "lost.png"}, r"line 4: there is no picture 'lost\.png'"),
        ({"file_name": "../../etc/passwd.png"}, r"line 4: there is no picture"),
        ({"file_name": ""}, "line 4: file_name is empty"),
    ],
)
def test_rows_that_are_wrong_are_named_and_can_be_skipped(folder, change, message):
    n = 12
    for i in range(n):
        draw(folder / f"{i}.png", pixels(i))
    rows = rows_of(n)
    rows[2] |= change
    metadata(folder, rows)
    with pytest.raises(BadInput, match=message):
        load(str(folder))
    pictures, values = all_of(folder, skip_bad=True)
    assert len(pictures) == len(values["kind"]) == 11
    assert pixels(2).tobytes() not in {p.tobytes() for p in pictures}


def test_a_picture_without_row(folder):
    for i in range(6):
        draw(folder / f"{i}.png", pixels(i))
    metadata(folder, [{"file_name": f"{i}.png", "age": i} for i in range(5)])
    with pytest.raises(BadInput, match=r"5\.png: no metadata row names it"):
        load(str(folder))
    assert len(all_of(folder, skip_bad=True)[0]) == 5


def test_an_empty_class_is_refused_until_skipped(folder):
    classes(folder)
    (folder / "cow").mkdir()
    with pytest.raises(BadInput, match=r"label 'cow': this class has no usable picture"):
        load(str(folder))
    assert load(str(folder), skip_bad=True).schema["label"].names == ("ant", "bee", "cow")


def test_a_bomb_in_a_folder(folder):
    classes(folder)
    Image.new("1", (9000, 9000)).save(folder / "ant" / "bomb.png")
    with pytest.raises(BadInput, match=r"ant/bomb\.png: has 9000x9000 pixels"):
        load(str(folder))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("metadata.csv", b"picture,age\n0.png,1\n", "no column 'file_name'"),
        ("metadata.csv", b"file_name,age\n0.png,1,2\n", "line 2 has more cells"),
        ("metadata.csv", b"file_name,age\n0.png,\xff\xfe\n", "not UTF-8"),
        ("metadata.jsonl", b'{"file_name": "0.png"}\n{"file', "line 2 is not JSON"),
        ("metadata.jsonl", b"[" * 100_000, "line 1 is not JSON"),
        ("metadata.jsonl", b"3", "not a JSON object"),
        ("metadata.parquet", b"hello", "cannot be read"),
        ("metadata.json", b"[]", "is not read. Name it one of metadata.csv"),
        ("schema.json", b'{"label": {"kind": "Lable"}}', "did you mean 'Label'"),
        ("dataset.json", b'{"labels": 3}', "not a list"),
    ],
)
def test_metadata_that_cannot_be_read(folder, name, content, message):
    draw(folder / "0.png", pixels(0))
    (folder / name).write_bytes(content)
    with pytest.raises(BadInput, match=message):
        load(str(folder))


def test_an_empty_folder_and_a_file_that_is_none(folder, tmp_path):
    with pytest.raises(BadInput, match="no pictures found"):
        load(str(folder))
    (tmp_path / "a.txt").write_text("hello")
    with pytest.raises(BadInput, match="neither a folder, a zip"):
        load(str(tmp_path / "a.txt"))


def test_a_bad_picture_inside_a_zip_is_named(folder, tmp_path):
    whole = io.BytesIO()
    Image.fromarray(pixels(0)).save(whole, "PNG")
    with ZipFile(tmp_path / "set.zip", "w") as archive:
        archive.writestr("a.png", whole.getvalue())
        archive.writestr("b.png", whole.getvalue()[:60])
    with pytest.raises(BadInput, match=r"b\.png"):
        load(str(tmp_path / "set.zip"))
