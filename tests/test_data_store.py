"""The store: what goes in comes out, equal content has an equal fingerprint, and damage or a race never shows."""

import json
import multiprocessing
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from condgen.conditions import Attributes, Label, Picture
from condgen.data import cache, load, store
from condgen.data.cache import Hashes, publish
from condgen.data.splits import bounds, parse_split
from condgen.data.store import Content, Dataset, fingerprint, to_bytes, to_float
from condgen.errors import BadInput


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("CONDGEN_CACHE", str(tmp_path / "cache"))


def content(n: int = 6, seed: int = 0, names: tuple[str, ...] = ("a", "b")) -> Content:
    random = np.random.Generator(np.random.PCG64(seed))
    pixels = random.integers(0, 256, (n, 5, 4, 3), dtype=np.uint8)
    columns = {
        "kind": torch.arange(n) % 2,
        "size": torch.linspace(0, 1, n)[:, None],
        "other": random.integers(0, 256, (n, 2, 3, 1), dtype=np.uint8),
    }
    return Content(pixels, columns, {"kind": Label(names), "size": Attributes(("big",)), "other": Picture((1, 2, 3))}, ["hello"])


def stored(tmp_path, made: Content) -> Dataset:
    folder = tmp_path / "store"
    folder.mkdir(exist_ok=True)
    store.write(folder, made)
    return store.read(folder, "name", "train")


def test_what_is_written_is_read(tmp_path):
    made = content()
    data = stored(tmp_path, made)
    assert len(data) == 6 and data.shape == (3, 5, 4) and data.notes == ["hello"]
    assert data.schema == made.schema
    assert np.array_equal(data.pictures(), made.samples)
    assert torch.equal(data.values()["kind"], made.columns["kind"])
    assert torch.equal(data.values([5, 0])["size"], torch.tensor([[1.0], [0.0]]))
    assert data.values()["other"].shape == (6, 1, 2, 3)
    assert torch.equal(data.values([2])["other"], to_float(made.columns["other"][2:3]))


@pytest.mark.parametrize("rows", [np.array([4, 1]), torch.tensor([4, 1]), [4, 1]])
def test_batch_gathers_rows_in_order(tmp_path, rows):
    made = content()
    batch = stored(tmp_path, made).batch(rows)
    assert batch.x.dtype == torch.float32 and batch.x.shape == (2, 3, 5, 4) and batch.x.is_contiguous()
    assert torch.allclose(batch.x[0], torch.from_numpy(made.samples[4]).permute(2, 0, 1) / 127.5 - 1)
    assert batch.c["kind"].tolist() == [0, 1]
    for name, condition in made.schema.items():
        assert batch.c[name].dtype == condition.dtype and batch.c[name].shape[1:] == condition.shape


def test_batch_is_its_own_memory(tmp_path):
    data = stored(tmp_path, content())
    before = data.fingerprint
    data.batch([0, 1]).x.zero_()
    data.batch(range(6)).c["kind"].add_(1)
    data.values()["size"].zero_()
    data.pictures()[:] = 0
    assert fingerprint(data.content) == before


def test_a_row_that_is_not_there(tmp_path):
    with pytest.raises(IndexError):
        stored(tmp_path, content()).batch([6])


def test_bytes_round_trip_exactly():
    every = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    assert np.array_equal(to_bytes(to_float(every)), every)
    assert to_float(every).min() == -1 and to_float(every).max() == 1
    assert to_bytes(torch.full((1, 1, 1, 1), 3.0)).item() == 255


def test_a_large_set_is_mapped_and_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "IN_MEMORY_BYTES", 0)
    data = stored(tmp_path, content())
    assert isinstance(data.content.samples, np.memmap)
    assert np.array_equal(to_bytes(data.batch([3]).x)[0], content().samples[3])


def changed_pixel(made: Content) -> Content:
    made.samples[0, 0, 0, 0] ^= 1
    return made


def changed_value(made: Content) -> Content:
    made.columns["kind"][0] ^= 1
    return made


def changed_picture(made: Content) -> Content:
    made.columns["other"][0, 0, 0, 0] ^= 1
    return made


def test_equal_content_equal_fingerprint(tmp_path):
    base = fingerprint(content())
    assert fingerprint(content()) == base == stored(tmp_path, content()).fingerprint
    others = [changed_pixel(content()), changed_value(content()), changed_picture(content()), content(names=("a", "c")), content(n=5)]
    assert len({base, *map(fingerprint, others)}) == 6


def test_fingerprint_of_slices():
    data = Dataset("x", "train", content())
    assert data.slice(0, 6).fingerprint == data.fingerprint
    assert data.slice(0, 3).fingerprint != data.fingerprint
    again = Dataset("y", "test", content())
    assert data.slice(1, 4).fingerprint == again.slice(1, 4).fingerprint != data.slice(2, 5).fingerprint


def test_slice_keeps_rows_together():
    data = Dataset("x", "train", content())
    part = data.slice(2, 5)
    assert len(part) == 3
    assert torch.equal(part.batch([0]).x, data.batch([2]).x)
    assert torch.equal(part.values()["kind"], data.values([2, 3, 4])["kind"])
    with pytest.raises(BadInput, match="empty"):
        data.slice(6, 9)


def test_rows_must_agree():
    with pytest.raises(BadInput, match="'kind' has 2 values for 3"):
        Content(np.zeros((3, 2), np.float32), {"kind": torch.zeros(2)}, {"kind": Label(("a",))})


@pytest.mark.parametrize(
    ("text", "n", "expected"),
    [
        ("train", 10, ("train", 0, 10)),
        ("train[:4]", 10, ("train", 0, 4)),
        ("train[4:]", 10, ("train", 4, 10)),
        ("test[-3:]", 10, ("test", 7, 10)),
        ("test[10%:30%]", 50, ("test", 5, 15)),
        ("val[:99]", 10, ("val", 0, 10)),
    ],
)
def test_split_expressions(text, n, expected):
    name, start, stop = parse_split(text)
    assert (name, *bounds(start, stop, n)) == expected


@pytest.mark.parametrize("text", ["", "train[", "train[1]", "train[a:b]", "[:3]", "train[::2]"])
def test_bad_split_expressions(text):
    with pytest.raises(BadInput, match="not understood"):
        parse_split(text)


# --- on disk ---


def store_folder() -> "os.PathLike[str]":
    return next((cache.cache_folder() / "data").iterdir())


@pytest.mark.parametrize("file", ["samples.npy", "conditions.safetensors", "store.json"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_store_is_made_again(file, damage):
    whole = load("digits").fingerprint
    path = store_folder() / "train" / file
    path.write_bytes(path.read_bytes()[:-7]) if damage == "cut" else path.unlink()
    again = load("digits")
    assert again.fingerprint == whole == fingerprint(again.content)
    assert store.facts_of(store_folder() / "train")


def test_a_store_of_another_format_is_made_again():
    load("digits")
    path = store_folder() / "test" / "store.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": -1}))
    assert len(load("digits", "test")) == 359


def test_nothing_is_left_over_when_filling_fails(tmp_path):
    def fill(folder):
        (folder / "half").write_text("half")
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError):
        publish(tmp_path / "deep" / "target", fill, lambda folder: folder.exists())
    assert list((tmp_path / "deep").iterdir()) == []


def _publish_in_process(target, started, results):
    def fill(folder):
        (folder / "who").write_text(str(os.getpid()))

    def whole(folder):
        return (folder / "who").exists()

    started.wait()
    publish(target, fill, whole)
    results.put((target / "who").read_text())


def test_two_processes_prepare_at_once(tmp_path):
    spawn = multiprocessing.get_context("fork")
    started, results = spawn.Barrier(4), spawn.Queue()
    workers = [spawn.Process(target=_publish_in_process, args=(tmp_path / "t", started, results)) for _ in range(4)]
    for worker in workers:
        worker.start()
    seen = {results.get(timeout=20) for _ in workers}
    for worker in workers:
        worker.join()
    assert all(worker.exitcode == 0 for worker in workers)
    assert len(seen) == 1, "all must see the first one's"
    assert [p.name for p in tmp_path.iterdir() if p.name != "cache"] == ["t"]


def test_two_processes_load_at_once(tmp_path):
    code = "from condgen.data import load; print(load('mixture2d').fingerprint)"
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ) for _ in range(2)]
    answers = {run.communicate(timeout=60)[0] for run in runs}
    assert all(run.returncode == 0 for run in runs)
    assert answers == {load("mixture2d").fingerprint + "\n"}
    assert len(list((cache.cache_folder() / "data").iterdir())) == 1


def test_a_cache_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CONDGEN_CACHE", str(tmp_path / "file" / "below"))
    with pytest.raises(BadInput, match="CONDGEN_CACHE"):
        load("digits")


def test_file_hashes_are_remembered_until_the_file_changes(tmp_path):
    file = tmp_path / "f"
    file.write_text("one")
    os.utime(file, ns=(10**18, 10**18))
    with cache.hashes(tmp_path) as memo:
        first = memo.of(file)
    assert Hashes(tmp_path).known[str(file.resolve())][2] == first
    file.write_text("two")
    assert Hashes(tmp_path).of(file) != first
