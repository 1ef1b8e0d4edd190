"""The faces: same rows at both sizes, Gauthier's split or people apart, and an answer where they are missing."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from condgen.conditions import Attributes, Keypoints, Vector
from condgen.data import lfw, load
from condgen.data.cache import data_folder
from condgen.errors import BadInput


def packed(pictures):
    """As the files of a pack lie: codes one behind the other, and where each begins."""
    codes = []
    for picture in pictures:
        into = io.BytesIO()
        Image.fromarray(picture).save(into, "png")
        codes.append(into.getvalue())
    return {"codes": np.frombuffer(b"".join(codes), dtype=np.uint8), "offsets": np.cumsum([0, *map(len, codes)])}


@pytest.fixture
def faces(tmp_path, monkeypatch):
    """Sixty pictures of twenty people in the layout of $CONDGEN_DATA."""
    draw = np.random.default_rng(0)
    (tmp_path / "lfw64").mkdir()
    (tmp_path / "lfwcrop32").mkdir()
    n = 60
    known = np.ones(n, dtype=bool)
    known[[3, 50]] = False
    np.savez(
        tmp_path / "lfw64" / "meta.npz",
        names=np.array([f"Person_{i // 3:02d}_{i % 3:04d}" for i in range(n)]),
        facer_keys=np.array(["Smiling", "Male"]),
        facer_attr_u8=draw.integers(0, 256, (n, 2), dtype=np.uint8),
        has_facer=known,
        kumar_pca30=draw.normal(size=(n, 30)).astype(np.float32),
        has_kumar=np.ones(n, dtype=bool),
        gauthier_split=np.array([0] * 40 + [1] * 8 + [2] * 8 + [-1] * 4, dtype=np.int8),
        landmarks68=draw.uniform(0, 1, (n, 68, 2)).astype(np.float16),
    )
    np.savez(tmp_path / "lfw64" / "images64.npz", **packed(draw.integers(0, 256, (n, 64, 64, 3), dtype=np.uint8)))
    np.savez(tmp_path / "lfwcrop32" / "images32.npz", x=draw.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8))
    monkeypatch.setenv("CONDGEN_DATA", str(tmp_path))
    monkeypatch.setenv("CONDGEN_CACHE", str(tmp_path / "cache"))  # known sets are kept by name: no other test may be given these
    return tmp_path


def test_pictures_without_attributes_are_left_out_and_counted(faces, tmp_path):
    found = lfw.small(tmp_path)
    assert {k: len(c.samples) for k, c in found.items()} == {"train": 39, "validation": 8, "test": 7}
    assert found["test"].notes == ["1 pictures of test have no attributes and are left out"]
    assert found["train"].schema == {"face": Attributes(("smiling", "male")), "look": Vector(30)}
    face = found["train"].columns["face"]
    assert face.dtype == torch.float32 and face.min() >= 0 and face.max() <= 1


def test_people_do_not_overlap_where_the_split_is_by_person(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(lfw, "HELD_OUT", 0.25)
    found = lfw.small_by_person(tmp_path)
    with np.load(faces / "lfwcrop32" / "images32.npz") as file:
        pictures = {row.tobytes(): i // 3 for i, row in enumerate(file["x"])}
    people = {k: {pictures[x.tobytes()] for x in c.samples} for k, c in found.items()}
    assert all(people.values()) and not (people["train"] & people["test"]) and not (people["train"] & people["validation"])
    assert sum(len(c.samples) for c in found.values()) == 58, "every known picture is in one of them"


def test_the_set_with_key_points_has_the_pictures_of_lfw64_and_one_condition_more(faces, tmp_path):
    plain, pointed = lfw.large(tmp_path), lfw.large_with_landmarks(tmp_path)
    with np.load(faces / "lfw64" / "meta.npz") as meta:
        expected = torch.from_numpy(meta["landmarks68"][[i for i in range(40) if i != 3]].astype(np.float32))
    train = pointed["train"].columns["landmarks"]
    assert torch.equal(train[..., :2], expected) and bool((train[..., 2] == 1).all()) and train.dtype == torch.float32
    for name, content in pointed.items():
        assert np.array_equal(content.samples, plain[name].samples) and content.notes == plain[name].notes
        assert content.schema == {**plain[name].schema, "landmarks": lfw.LANDMARKS}
        assert all(torch.equal(content.columns[k], plain[name].columns[k]) for k in plain[name].schema)
    assert isinstance(lfw.LANDMARKS, Keypoints) and len(lfw.LANDMARKS.names) == 68
    expected = {0: "jaw_0", 8: "jaw_8", 16: "jaw_16", 30: "nose_3", 36: "right_eye_0", 45: "left_eye_3", 48: "mouth_0", 67: "mouth_19"}
    assert {i: lfw.LANDMARKS.names[i] for i in expected} == expected


def test_smaller_pictures_are_means_and_keep_their_points(faces, tmp_path):
    large, small = lfw.large_with_landmarks(tmp_path), load("lfw64-landmarks", "train", size=32)
    assert small.shape == (3, 32, 32)
    corner = large["train"].samples[:, :2, :2].astype(float).mean((1, 2))
    assert np.abs(small.pictures()[:, 0, 0] - corner).max() <= 0.5
    assert torch.equal(small.values()["landmarks"], large["train"].columns["landmarks"])
    for size in (48, 128, 4):
        with pytest.raises(BadInput, match=f"averaged to 32, 16 or 8; size is {size}"):
            load("lfw64-landmarks", size=size)


@pytest.mark.parametrize("value", [np.nan, 3.0])
def test_pictures_without_points_are_left_out_and_counted(faces, tmp_path, value):
    with np.load(faces / "lfw64" / "meta.npz") as meta:
        known = dict(meta)
    known["landmarks68"][[0, 7, 3], 5, 1] = value  # the fourth has no attributes either
    np.savez(faces / "lfw64" / "meta.npz", **known)
    plain, pointed = lfw.large(tmp_path)["train"], lfw.large_with_landmarks(tmp_path)["train"]
    assert pointed.notes == [*plain.notes, "2 pictures of train have no key points and are left out"]
    kept = [i for i in range(39) if i not in (0, 6)]
    assert np.array_equal(pointed.samples, plain.samples[kept]) and torch.equal(pointed.columns["face"], plain.columns["face"][kept])


def test_missing_faces_are_named(monkeypatch, tmp_path):
    monkeypatch.setenv("CONDGEN_DATA", str(tmp_path))
    monkeypatch.setenv("CONDGEN_CACHE", str(tmp_path / "cache"))  # faces that were prepared once need no data any more
    with pytest.raises(BadInput, match=r"lfw64.meta\.npz is missing"):
        load("lfwcrop32")


def test_the_real_faces_are_the_same_rows_at_both_sizes():
    if data_folder() is None or not (data_folder() / "lfw64").is_dir():
        pytest.skip("lfw64 is not in CONDGEN_DATA")
    small = load("lfwcrop32", "test")
    assert len(small) == 562 and small.shape == (3, 32, 32) and "smiling" in small.schema["face"].names


def test_every_real_face_has_its_points():
    if data_folder() is None or not (data_folder() / "lfw64").is_dir():
        pytest.skip("lfw64 is not in CONDGEN_DATA")
    test = load("lfw64-landmarks", "test", size=32)
    points = test.values()["landmarks"]
    assert len(test) == 562 and test.schema["landmarks"].problem(points) is None
    eyes, mouth = points[:, 36:48, :2].mean(1), points[:, 48:, :2].mean(1)
    assert bool((mouth[:, 1] > eyes[:, 1]).all()), "y points downwards"
    assert bool((points[:, 36, 0] < points[:, 45, 0]).all()), "the person's right eye is on the left of the picture"
