"""Omniglot: which drawings are in which split, what was done to them, and the one-shot runs; and what ink does when it is moved."""

import io
import os
import zipfile
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch

from condgen.data import fetch, load, omniglot
from condgen.data.ink import blurred, centred, reduced
from condgen.data.store import to_float
from condgen.errors import BadInput


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONDGEN_CACHE", str(tmp_path_factory.mktemp("omniglot-cache")))
        yield


@pytest.fixture
def real() -> Path:
    folder = Path(os.environ.get("CONDGEN_DATA", "")) / "omniglot"
    if not os.environ.get("CONDGEN_DATA") or not folder.is_dir():
        pytest.skip("$CONDGEN_DATA/omniglot is missing")
    return folder


@pytest.fixture
def offline(tmp_path, monkeypatch):
    def refuse(address, timeout):
        raise URLError(f"no network for {address}")

    monkeypatch.setenv("CONDGEN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CONDGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "urlopen", refuse)


def test_splits_share_their_names_and_no_character(real):
    train, test, second = (load("omniglot", split, size=28) for split in ("train", "test", "small2"))
    assert [len(d) for d in (train, test, second)] == [2720, 2120, 3120]
    assert train.shape == (1, 28, 28) and train.schema == test.schema == second.schema
    assert list(train.schema) == ["character", "alphabet"]
    names = train.schema["character"].names
    assert len(names) == 242 and list(names) == sorted(names) and "Latin/character05" in names
    drawn = [d.values()["character"].bincount(minlength=242) for d in (train, test, second)]
    assert all(set(count.tolist()) == {0, 20} for count in drawn)
    assert not ((drawn[0] > 0) & (drawn[1] > 0)).any() and ((drawn[0] > 0) & (drawn[2] > 0)).sum() == 50


def test_each_drawing_has_the_name_of_its_folder(real):
    train = load("omniglot", size=28)
    values = train.values()
    words = [train.schema["alphabet"].names[i] for i in values["alphabet"]]
    assert [train.schema["character"].names[i].split("/")[0] for i in values["character"]] == words
    with zipfile.ZipFile(real / "images_background_small1.zip") as archive:
        name = sorted(n for n in archive.namelist() if n.endswith(".png"))[777]
        paper = _paper(archive.read(name))
    assert train.schema["character"].names[values["character"][777]] == "/".join(name.split("/")[1:3])
    assert np.array_equal(train.pictures([777]), reduced(255 - paper[None, ..., None], 28))


def _paper(content: bytes) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(content)).convert("L"))


def test_ink_is_white_on_black_and_said_to_be(real):
    data = load("omniglot", "test", size=28)
    assert data.pictures().mean() < 40, "most of a sheet is empty"
    assert any("inverted" in note for note in data.notes) and any("105 to 28 px" in note for note in data.notes)
    with pytest.raises(BadInput, match=r"omniglot.*128.*at most 105"):
        load("omniglot", size=128)


def test_runs_have_an_answer_for_each_question(real):
    runs = omniglot.one_shot_runs(28)
    assert len(runs) == 20 and all(run.shown.shape == run.asked.shape == (20, 1, 28, 28) for run in runs)
    assert all(sorted(run.answers.tolist()) == list(range(20)) for run in runs)
    assert runs[0].answers[:3].tolist() == [7, 8, 1]  # class08, class09, class02
    assert runs[0].shown.min() == -1 and runs[0].shown.max() > 0.3


def test_runs_can_be_centred_and_blurred(real):
    shown = omniglot.one_shot_runs(centred=True)[4].shown
    ink = (shown + 1) / 2
    middle = (ink.sum((1, 2)) @ torch.arange(105.0)) / ink.sum((1, 2, 3))
    assert (middle - 52).abs().max() <= 0.51
    assert set(ink.unique().tolist()) == {0.0, 1.0}, "moved by whole pixels"
    with pytest.raises(BadInput, match="blur"):
        omniglot.one_shot_runs(blur=-1.0)


def test_without_the_files(offline):
    with pytest.raises(BadInput, match=r"one-shot-classification/.*Put all_runs\.zip into .*omniglot"):
        omniglot.one_shot_runs()
    with pytest.raises(BadInput, match=r"no network.*images_background_small1\.zip"):
        load("omniglot")


def test_another_file_is_refused(offline, tmp_path):
    (tmp_path / "data" / "omniglot").mkdir(parents=True)
    (tmp_path / "data" / "omniglot" / "all_runs.zip").write_bytes(b"PK")
    with pytest.raises(BadInput, match=r"is not the all_runs\.zip of omniglot: its SHA-256 differs"):
        omniglot.one_shot_runs()


# --- ink ------------------------------------------------------------------------------------------------------------------


def sheet(points: dict[tuple[int, int], int], side: int = 9) -> torch.Tensor:
    pixels = np.zeros((1, side, side, 1), dtype=np.uint8)
    for (row, column), value in points.items():
        pixels[0, row, column, 0] = value
    return to_float(pixels)


def test_centring_puts_the_mass_in_the_middle():
    found = centred(sheet({(1, 6): 255}))
    assert torch.allclose(found, sheet({(4, 4): 255}), atol=1e-5)


def test_centring_between_pixels_keeps_the_mass():
    found = (centred(sheet({(1, 6): 255, (1, 7): 255})) + 1) / 2
    assert torch.allclose(found[0, 0, 4, 3:6], torch.tensor([0.5, 1.0, 0.5]), atol=1e-5)
    whole = (centred(sheet({(1, 6): 255, (1, 7): 255}), whole=True) + 1) / 2
    assert whole[0, 0, 4].round(decimals=4).sum() == 2 and set(whole.round(decimals=4).unique().tolist()) == {0.0, 1.0}


def test_an_empty_sheet_stays_empty():
    assert torch.allclose(centred(sheet({})), sheet({}))


def test_blur_is_the_gaussian_of_scipy():
    ndimage = pytest.importorskip("scipy.ndimage")
    x = sheet({(10, 6): 255, (11, 12): 128}, side=25)
    expected = ndimage.gaussian_filter(((x + 1) / 2)[0, 0].numpy(), 1.0, mode="constant")
    assert np.allclose(((blurred(x, 1.0) + 1) / 2)[0, 0], expected, atol=1e-6)
    assert torch.equal(blurred(x, 0.0), x)
