"""The faces: same rows at both sizes, Gauthier's split or people apart, and an answer where they are missing."""

import numpy as np
import pytest
import torch

from condgen.conditions import Attributes, Vector
from condgen.data import lfw, load
from condgen.data.cache import data_folder
from condgen.errors import BadInput


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
    )
    np.savez(tmp_path / "lfwcrop32" / "images32.npz", x=draw.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8))
    monkeypatch.setenv("CONDGEN_DATA", str(tmp_path))
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
