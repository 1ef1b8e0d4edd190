"""`data check` finds every problem at once, names it and says what to do."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from condgen.data import load
from condgen.data.check import check
from condgen.errors import BadInput


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONDGEN_CACHE", str(tmp_path / "cache"))


def draw(path: Path, seed: int, side: int = 8) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.Generator(np.random.PCG64(seed)).integers(0, 256, (side, side, 3), dtype=np.uint8)
    Image.fromarray(array).save(path)


@pytest.fixture
def clean(tmp_path) -> Path:
    for i in range(20):
        draw(tmp_path / "set" / ("ant", "bee")[i % 2] / f"{i}.png", i)
    return tmp_path / "set"


@pytest.fixture
def broken(clean) -> Path:
    """One of everything."""
    (clean / "ant" / "0.png").write_bytes((clean / "ant" / "0.png").read_bytes()[:100])
    (clean / "bee" / "1.png").write_bytes(b"")
    Image.new("1", (9000, 9000)).save(clean / "bee" / "bomb.png")
    (clean / "cow").mkdir()
    draw(clean / "dog" / "only.png", 50)
    (clean / "bee" / "again.png").write_bytes((clean / "bee" / "3.png").read_bytes())
    draw(clean / "bee" / "big.png", 51, side=30)
    draw(clean / "stray.png", 52)
    (clean / "notes.txt").write_text("hello")
    return clean


def test_a_clean_set_is_ready(clean):
    report = check(str(clean))
    assert report.ok and report.problems == []
    assert (report.samples, report.usable, sum(report.splits.values())) == (20, 20, 20)
    assert report.classes == {"label": {"ant": 10, "bee": 10}}
    assert report.sizes == {"8x8": 20} and report.modes == {"colour": 20}
    assert "ready for training" in report.to_text()
    assert report.splits == {split: len(load(str(clean), split)) for split in report.splits}


def test_every_problem_is_found_at_once(broken):
    report = check(str(broken))
    found = {(p.kind, p.where) for p in report.problems}
    assert found == {
        ("unreadable", "ant/0.png"),
        ("unreadable", "bee/1.png"),
        ("bomb", "bee/bomb.png"),
        ("empty_class", "label 'cow'"),
        ("class_of_one", "label 'dog'"),
        ("duplicate", "bee/again.png"),
        ("mixed_sizes", "bee/big.png"),
        ("picture_without_row", "stray.png"),
    }
    assert all(p.remedy and p.what for p in report.problems)
    assert not report.ok
    assert report.usable == report.samples - 4
    text = report.to_text()
    for p in report.problems:
        assert p.where in text and p.remedy in text
    assert any("notes.txt" in note for note in report.notes)


def test_a_size_mends_mixed_sizes(broken):
    assert "mixed_sizes" not in {p.kind for p in check(str(broken), size=8).problems}


def test_json_is_plain_and_whole(broken):
    report = check(str(broken))
    data = json.loads(json.dumps(report.to_json()))
    assert data["ok"] is False and len(data["problems"]) == len(report.problems)
    assert set(data["problems"][0]) == {"kind", "where", "what", "remedy", "stops"}
    assert data["schema"]["label"]["names"] == ["ant", "bee", "cow", "dog"]


def test_check_and_load_agree(broken):
    """What the check calls stopping is what loading refuses by."""
    stopping = [p for p in check(str(broken)).problems if p.stops]
    with pytest.raises(BadInput, match=f"{len(stopping)} problems"):
        load(str(broken))
    for name in ("ant/0.png", "bee/1.png", "bee/bomb.png", "stray.png", "bee/big.png"):
        (broken / name).unlink()
    (broken / "cow").rmdir()
    assert check(str(broken)).ok and len(load(str(broken))) > 0


def test_rows_and_values(tmp_path):
    folder = tmp_path / "set"
    for i in range(8):
        draw(folder / f"{i}.png", i)
    lines = [f"{i}.png,{i / 10},1 1 4 4" for i in range(7)]
    lines[1] = "1.png,nan,1 1 4 4"
    lines[2] = "2.png,0.2,6 6 4 4"
    lines[3] = "lost.png,0.3,1 1 4 4"
    (folder / "metadata.csv").write_text("file_name,age,bbox\n" + "\n".join(lines))
    found = {(p.kind, p.where) for p in check(str(folder)).problems}
    assert found == {
        ("nan", "metadata.csv line 3"),
        ("box_outside", "metadata.csv line 4"),
        ("row_without_picture", "metadata.csv line 5"),
        ("picture_without_row", "3.png"),
        ("picture_without_row", "7.png"),
    }


def test_doubles_across_splits_are_said(tmp_path):
    for split in ("train", "test"):
        for i in range(3):
            draw(tmp_path / "set" / split / f"{i}.png", i + 10 * (split == "test" and i > 0))
    problems = check(str(tmp_path / "set")).problems
    assert [p.kind for p in problems] == ["duplicate"] and "across test and train" in problems[0].what
    assert check(str(tmp_path / "set")).ok


def test_a_source_that_cannot_be_read_at_all_is_a_report_too(tmp_path):
    (tmp_path / "empty").mkdir()
    report = check(str(tmp_path / "empty"))
    assert not report.ok and report.problems[0].kind == "unusable" and "no pictures found" in report.to_text()
    with pytest.raises(BadInput, match="no file or folder"):
        check(str(tmp_path / "nowhere"))


def test_known_and_array_sources(tmp_path):
    report = check("digits")
    assert report.ok and sum(report.classes["digit"].values()) == report.samples == 1797
    np.savez(tmp_path / "a.npz", x=np.zeros((4, 3, 3), np.uint8), label=np.array([0, 0, 1, 1]))
    report = check(str(tmp_path / "a.npz"))
    assert {p.kind for p in report.problems} == {"duplicate"} and report.classes == {"label": {"0": 2, "1": 2}}


def test_long_lists_are_shortened_in_text_but_not_in_json(tmp_path):
    for i in range(15):
        (tmp_path / "set").mkdir(exist_ok=True)
        (tmp_path / "set" / f"{i}.png").write_bytes(b"bad")
    report = check(str(tmp_path / "set"))
    assert "and 5 more" in report.to_text() and len(report.to_json()["problems"]) == 15
