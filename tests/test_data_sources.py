"""The embedded and known sets: what they hold, exactly, and what is said for a name that is none."""

import gzip
import os
import subprocess
import sys
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch

from condgen.conditions import Label
from condgen.data import available, fetch, load, mixture2d, mnist
from condgen.data.digits import stratified
from condgen.errors import BadInput


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("CONDGEN_CACHE", str(tmp_path_factory.getbasetemp() / "sources-cache"))


@pytest.fixture
def real_mnist() -> Path:
    folder = Path(os.environ.get("CONDGEN_DATA", "")) / "mnist"
    if not os.environ.get("CONDGEN_DATA") or not folder.is_dir():
        pytest.skip("$CONDGEN_DATA/mnist is missing")
    return folder


def test_digits_are_all_there_and_split_evenly():
    from sklearn.datasets import load_digits

    train, test = load("digits"), load("digits", "test")
    assert (len(train), len(test), train.shape) == (1438, 359, (1, 8, 8))
    assert train.schema == {"digit": Label(tuple("0123456789"))}
    together = np.concatenate([train.pictures(), test.pictures()])[..., 0]
    original = load_digits().images * 255 / 16
    assert sorted(map(bytes, together)) == sorted(bytes(image) for image in np.round(original).astype(np.uint8))
    counts = [torch.bincount(d.values()["digit"], minlength=10) for d in (train, test)]
    assert ((counts[1] / (counts[0] + counts[1]) - 0.2).abs() < 0.004).all()
    x = train.batch(range(len(train))).x
    assert x.min() == -1 and x.max() == 1


def test_digit_labels_belong_to_their_pictures():
    from sklearn.datasets import load_digits

    known = {bytes(np.round(i * 255 / 16).astype(np.uint8)): t for i, t in zip(*load_digits(return_X_y=True), strict=True)}
    data = load("digits", "test")
    assert [known[bytes(p)] for p in data.pictures()] == data.values()["digit"].tolist()


def test_stratified_is_deterministic_and_exact():
    target = np.repeat([0, 1, 2], [10, 20, 5])
    mask = stratified(target, 0.2)
    assert np.bincount(target[mask]).tolist() == [2, 4, 1]
    assert np.array_equal(mask, stratified(target, 0.2))


def test_mixture_is_the_one_of_ali():
    train, test = load("mixture2d"), load("mixture2d", "test")
    assert train.shape == (2,) and len(train) == 100_000 and len(test) == 10_000
    assert set(map(tuple, mixture2d.CENTRES.tolist())) == {(x, y) for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)}
    batch = train.batch(np.arange(len(train)))
    mode = batch.c["mode"]
    off = batch.x - torch.from_numpy(mixture2d.CENTRES)[mode]
    assert batch.x.dtype == torch.float32 and abs(float(off.std()) - 0.05) < 0.0005 and off.mean(0).abs().max() < 0.001
    assert (torch.bincount(mode, minlength=25) - 4000).abs().max() < 300
    assert not set(map(tuple, train.batch(range(1000)).x.tolist())) & set(map(tuple, test.batch(range(1000)).x.tolist()))
    assert train.schema["mode"].names[0] == "-4,-4" and mixture2d.CENTRES[1].tolist() == [-2, -4]
    with pytest.raises(BadInput, match="points"):
        train.pictures()


def test_mnist_is_the_canonical_one(real_mnist):
    train, test = load("mnist"), load("mnist", "test")
    assert (len(train), len(test), train.shape) == (60_000, 10_000, (1, 28, 28))
    counts = torch.bincount(train.values()["digit"])
    assert counts.tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert train.values(range(5))["digit"].tolist() == [5, 0, 4, 1, 9]
    assert len(load("mnist", "train[:50000]")) == 50_000
    assert torch.equal(load("mnist", "train[50000:]").batch([0]).x, train.batch([50_000]).x)


def test_mnist_at_32_px_is_padded_not_resized(real_mnist):
    small, padded = load("mnist", "test"), load("mnist", "test", size=32)
    assert padded.shape == (1, 32, 32)
    assert np.array_equal(padded.pictures(range(50))[:, 2:30, 2:30], small.pictures(range(50)))
    assert padded.pictures(range(50))[:, :2].max() == 0
    assert any("not resized" in note for note in padded.notes)
    with pytest.raises(BadInput, match="28"):
        load("mnist", size=16)


def test_mnist_without_network(tmp_path, monkeypatch):
    def offline(address, timeout):
        raise URLError("no network here")

    monkeypatch.setenv("CONDGEN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CONDGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "urlopen", offline)
    with pytest.raises(BadInput, match=r"no network here.*train-images-idx3-ubyte\.gz"):
        load("mnist")


def test_mnist_with_a_wrong_file(tmp_path, monkeypatch):
    monkeypatch.setenv("CONDGEN_DATA", str(tmp_path))
    monkeypatch.setenv("CONDGEN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "mnist").mkdir()
    path = tmp_path / "mnist" / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(b"\0" * 1000))
    with pytest.raises(BadInput, match="SHA-256"):
        load("mnist")
    path.write_bytes(b"not gzip")
    with pytest.raises(BadInput, match="cannot be unpacked"):
        load("mnist")


def test_mnist_is_fetched_checked_and_kept(tmp_path, monkeypatch, real_mnist):
    asked = []

    class Answer:
        def __init__(self, content):
            self.content = content

        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def read(self, limit):
            return self.content[:limit]

    def serve(address, timeout):
        asked.append(address)
        name = address.rsplit("/", 1)[1]
        good = (real_mnist / name).read_bytes()
        return Answer(good if address.startswith(mnist.MIRRORS[1]) else b"<html>moved</html>" * 100)

    monkeypatch.setenv("CONDGEN_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CONDGEN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetch, "urlopen", serve)
    for name in mnist.FILES["test"]:
        assert len(mnist._unpacked(name)) == mnist.BYTES[name]
    assert len(asked) == 4, "the first mirror's answer is refused, the second's is taken"
    assert {p.name for p in (tmp_path / "data" / "mnist").iterdir()} == {f"{name}.gz" for name in mnist.FILES["test"]}
    mnist._unpacked(mnist.FILES["test"][0])
    assert len(asked) == 4


def test_unknown_names_are_answered_with_the_nearest(tmp_path):
    with pytest.raises(BadInput, match="did you mean 'digits'"):
        load("digts")
    with pytest.raises(BadInput, match="no file or folder"):
        load(str(tmp_path / "nowhere"))
    with pytest.raises(BadInput, match="did you mean 'train'"):
        load("digits", "trian")
    with pytest.raises(BadInput, match="one size"):
        load("digits", size=16)


def test_available_says_one_line_each():
    assert {"digits", "mixture2d", "mnist"} <= set(available())
    assert all(line and "\n" not in line for line in available().values())


def test_import_is_light():
    heavy = ("PIL.Image", "sklearn", "pyarrow", "pandas", "matplotlib", "scipy")
    code = f"import sys, condgen.data; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=os.environ, check=True)
    assert done.stdout.strip() == "[]"
