"""Sets of two domains that nobody paired: folders trainA and trainB as they lie, and horses and zebras from their packs."""

import io
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from condgen.conditions import Label
from condgen.data import domains, load
from condgen.data.cache import data_folder
from condgen.data.check import check
from condgen.data.infer import infer
from condgen.data.table import in_turn
from condgen.errors import BadInput

AB = {"domain": Label(("A", "B"))}


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONDGEN_CACHE", str(tmp_path / "cache"))


def picture(letter: str, i: int, side: int = 8) -> Image.Image:
    """A is red, B is blue; which of them it is, is in green."""
    colour = (255 if letter == "A" else 0, 40 + 3 * i, 255 if letter == "B" else 0)
    return Image.new("RGB", (side, side), colour)


def filled(root: Path, **counts: int) -> Path:
    """A folder with so many pictures in each of its folders."""
    for folder, n in counts.items():
        (root / folder).mkdir(parents=True)
        for i in range(n):
            picture(folder[-1].upper(), i + 30 * folder.lower().startswith("test")).save(root / folder / f"{i:03d}.png")
    return root


def domain_seen(data) -> list[int]:
    return [int(p[0, 0, 2] == 255) for p in data.pictures()]


def test_a_folder_of_two_domains_is_read_as_it_lies(tmp_path):
    folder = str(filled(tmp_path / "set", trainA=4, trainB=8, testA=2, testB=3))
    train, test = load(folder), load(folder, "test")
    assert (len(train), len(test)) == (12, 5) and train.schema == test.schema == AB
    for data in (train, test):
        assert data.values()["domain"].tolist() == domain_seen(data)
    assert train.values()["domain"].tolist() == [1, 0, 1] * 4, "in turn: each third holds one of A and two of B"


def test_without_test_folders_both_domains_give_some(tmp_path):
    folder = str(filled(tmp_path / "set", trainA=30, trainB=12))
    train, test = load(folder), load(folder, "test")
    assert len(train) + len(test) == 42 and set(domain_seen(train)) == {0, 1} and len(test) >= 4
    assert test.schema == AB and "2 of 42" not in " ".join(train.notes) and any("held out" in note for note in train.notes)


@pytest.mark.parametrize("names", [("train_a", "train_b"), ("TrainA", "TrainB"), ("training-A", "training-B")])
def test_folders_may_be_spelled_otherwise(tmp_path, names):
    folder = filled(tmp_path / "set", **dict.fromkeys(names, 3))
    train = load(str(folder))
    assert train.schema == AB and train.values()["domain"].tolist() == domain_seen(train)


@pytest.mark.parametrize("top", ["", "horses/"])
def test_a_zip_of_them_is_the_same(tmp_path, top):
    folder = filled(tmp_path / "set", trainA=3, trainB=2, testA=1, testB=1)
    with ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, top + file.relative_to(folder).as_posix())
    zipped, plain = load(str(tmp_path / "set.zip")), load(str(folder))
    assert zipped.schema == AB and np.array_equal(zipped.pictures(), plain.pictures())


def test_the_check_counts_both(tmp_path, condgen):
    folder = filled(tmp_path / "set", trainA=4, trainB=8, testA=2, testB=3)
    found = check(str(folder))
    assert found.ok and found.classes == {"domain": {"A": 6, "B": 11}} and found.splits == {"train": 12, "test": 5}
    answer = condgen("data", "check", folder)
    assert answer.code == 0 and "domain: A 6, B 11" in answer.out and "ready for training" in answer.out


@pytest.mark.parametrize(
    "counts, said",
    [
        ({"trainA": 3}, r"no pictures in trainB \(trainA has 3\); translation learns from two folders"),
        ({"trainA": 3, "trainB": 0}, r"no pictures in trainB \(trainA has 3\)"),
        ({"trainB": 2, "testA": 2}, r"no pictures in trainA \(trainB has 2\)"),
        ({"testA": 2, "testB": 2}, r"no pictures in trainA and trainB \(there are only others\)"),
    ],
)
def test_one_domain_alone_is_refused_in_words(tmp_path, counts, said, condgen):
    folder = filled(tmp_path / "set", **counts)
    with pytest.raises(BadInput, match=said):
        load(str(folder))
    report = check(str(folder))
    assert not report.ok and report.problems[0].kind == "unusable"
    answer = condgen("data", "check", folder)
    assert answer.code != 0 and "need not be equally many" in answer.out + answer.err


def test_a_zip_of_trainA_alone_is_refused_too(tmp_path):
    folder = filled(tmp_path / "set", trainA=2)
    with ZipFile(tmp_path / "set.zip", "w") as archive:
        for file in sorted(folder.rglob("*.png")):
            archive.write(file, file.relative_to(folder).as_posix())
    with pytest.raises(BadInput, match="no pictures in trainB"):
        load(str(tmp_path / "set.zip"))


def test_a_test_split_of_one_domain_is_worth_a_note(tmp_path):
    train = load(str(filled(tmp_path / "set", trainA=3, trainB=3, testA=2)))
    assert "test has pictures of one domain only" in train.notes and train.schema == AB


def test_a_picture_outside_is_named_and_can_be_left_out(tmp_path):
    folder = filled(tmp_path / "set", trainA=3, trainB=3)
    picture("A", 9).save(folder / "stray.png")
    with pytest.raises(BadInput, match=r"stray\.png: lies in none of trainA, trainB, testA, testB"):
        load(str(folder))
    kept = load(str(folder), skip_bad=True)
    assert kept.schema == AB and any("skipped 1 of 7" in note for note in kept.notes)


def test_mixed_sizes_ask_for_one(tmp_path):
    folder = filled(tmp_path / "set", trainA=3, trainB=3)
    picture("B", 9, side=16).save(folder / "trainB" / "large.png")
    with pytest.raises(BadInput, match="--size"):
        load(str(folder))
    assert load(str(folder), size=8).shape == (3, 8, 8)


def test_class_folders_and_metadata_are_read_as_before(tmp_path):
    filled(tmp_path / "classes", trainAll=2, trainBoats=2)
    assert load(str(tmp_path / "classes")).schema == {"label": Label(("trainAll", "trainBoats"))}
    folder = filled(tmp_path / "told", trainA=2, trainB=2)
    rows = [f"train{k}/{i:03d}.png,{word}" for k, word in (("A", "cat"), ("B", "dog")) for i in (0, 1)]
    (folder / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
    assert load(str(folder)).schema == {"label": Label(("cat", "dog"))}


def test_a_column_of_that_name_is_a_label():
    assert infer([{"domain": "A"}, {"domain": "B"}, {"domain": "B"}]).schema == AB


@given(st.lists(st.integers(1, 30), min_size=1, max_size=4))
@settings(deadline=None, max_examples=60)
def test_groups_in_turn_are_whole_in_order_and_even(counts):
    groups = [[(k, i) for i in range(n)] for k, n in enumerate(counts)]
    found = in_turn(groups)
    assert [[item for item in found if item[0] == k] for k in range(len(counts))] == groups
    for stop in range(len(found)):
        for k, n in enumerate(counts):
            assert abs(sum(item[0] == k for item in found[:stop]) - stop * n / len(found)) <= len(counts)


# --- horses and zebras ------------------------------------------------------------------------------------------------------


@pytest.fixture
def packs(tmp_path, monkeypatch):
    """Packs in the layout of $CONDGEN_DATA: 5 and 4 to train, 2 and 3 to test."""
    (tmp_path / "horse2zebra128").mkdir()
    for name, n in {"trainA": 5, "trainB": 4, "testA": 2, "testB": 3}.items():
        codes = []
        for i in range(n):
            into = io.BytesIO()
            picture(name[-1], i + 30 * name.startswith("test"), 128).save(into, "png")
            codes.append(into.getvalue())
        offsets = np.cumsum([0, *map(len, codes)])
        np.savez(tmp_path / "horse2zebra128" / f"{name}128.npz", codes=np.frombuffer(b"".join(codes), dtype=np.uint8), offsets=offsets)
    monkeypatch.setenv("CONDGEN_DATA", str(tmp_path))
    return tmp_path


def test_horses_and_zebras_come_from_their_packs(packs):
    train, test = load("horse2zebra"), load("horse2zebra", "test", size=64)
    assert train.schema == {"domain": Label(("horse", "zebra"))} and train.shape == (3, 128, 128) and test.shape == (3, 64, 64)
    assert (len(train), len(test)) == (9, 5)
    for data in (train, test):
        assert data.values()["domain"].tolist() == domain_seen(data)
    assert sorted(p[0, 0, 1] for p in train.pictures()) == sorted([40, 43, 46, 49, 52, 40, 43, 46, 49])
    assert set(domain_seen(load("horse2zebra", "train[:2]"))) == {0, 1}


def test_smaller_horses_are_antialiased(packs):
    into = io.BytesIO()
    board = (np.indices((128, 128)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(np.repeat(board[..., None], 3, -1)).save(into, "png")
    codes = np.frombuffer(into.getvalue(), dtype=np.uint8)
    np.savez(packs / "horse2zebra128" / "testA128.npz", codes=codes, offsets=np.array([0, len(codes)]))
    found = domains.horse2zebra(packs, 64)["test"]
    horse = found.samples[found.columns["domain"].tolist().index(0)]
    assert np.abs(horse[4:-4, 4:-4].astype(int) - 127).max() <= 2, "each pixel a mean, not one of four"


def test_other_sizes_and_missing_packs_are_refused(packs, monkeypatch):
    with pytest.raises(BadInput, match="resized to 64; size is 256"):
        load("horse2zebra", size=256)
    (packs / "horse2zebra128" / "trainB128.npz").unlink()
    with pytest.raises(BadInput, match=r"trainB128\.npz is missing; .*trainA and trainB"):
        load("horse2zebra")
    monkeypatch.delenv("CONDGEN_DATA")
    with pytest.raises(BadInput, match=r"\$CONDGEN_DATA.horse2zebra128.trainA128\.npz is missing"):
        load("horse2zebra")


def test_the_real_horses_and_zebras():
    if data_folder() is None or not (data_folder() / "horse2zebra128").is_dir():
        pytest.skip("horse2zebra128 is not in CONDGEN_DATA")
    train, test = load("horse2zebra", size=64), load("horse2zebra", "test", size=64)
    assert train.values()["domain"].bincount().tolist() == [1067, 1334] and test.values()["domain"].bincount().tolist() == [120, 140]
    assert train.shape == (3, 64, 64) and 50 < train.pictures(range(50)).mean() < 200
