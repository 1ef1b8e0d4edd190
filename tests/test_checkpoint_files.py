"""Checkpoints one by one: which stay, what comes back, what is never half there."""

import pytest
import torch

from condgen.training import checkpoint
from condgen.training.checkpoint import folders, newest


def test_the_last_two_are_kept(tmp_path):
    for step in range(1, 6):
        checkpoint.write(tmp_path, step, {"model": {"w": torch.full((3,), float(step))}}, {"step": step})
        assert [checkpoint._number(f) for f in folders(tmp_path)] == list(range(max(1, step - 1), step + 1))
    assert checkpoint.KEEP == 2


def test_what_a_person_put_beside_the_checkpoints_stays(tmp_path):
    for name in ("step-000001 backup", "step-best", "notes"):
        (tmp_path / name).mkdir()
    for step in range(1, 5):
        checkpoint.write(tmp_path, step, {"model": {}}, {"step": step})
    assert sorted(f.name for f in tmp_path.iterdir()) == ["notes", "step-000001 backup", "step-000003", "step-000004", "step-best"]
    assert newest(tmp_path).state == {"step": 4}


def test_steps_beyond_a_million_are_in_order(tmp_path):
    for step in (999_999, 1_000_000):
        checkpoint.write(tmp_path, step, {"model": {}}, {"step": step})
    assert [f.name for f in folders(tmp_path)] == ["step-999999", "step-1000000"]
    assert newest(tmp_path).state == {"step": 1_000_000}
    assert newest(tmp_path / "nowhere") is None


def test_tensors_come_back_bit_for_bit(tmp_path):
    """Every kind that a state holds: odd layouts, one number, none at all, tied weights."""
    x = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    group = {"last": x, "t": torch.randn(4, 3).T, "half": torch.randn(3).bfloat16(), "n": torch.tensor(7), "none": torch.zeros(0, 3)}
    checkpoint.write(tmp_path, 1, {"model": group, "empty": {}}, {})
    found = newest(tmp_path).tensors
    assert found["empty"] == {} and found["model"].keys() == group.keys()
    for name, tensor in group.items():
        assert found["model"][name].dtype == tensor.dtype and torch.equal(found["model"][name], tensor), name


def test_a_file_written_atomically_is_whole_or_absent(tmp_path):
    file = tmp_path / "a" / "b.json"
    with checkpoint.atomic(file) as draft:
        draft.write_text("1")
        assert not file.exists()
    with pytest.raises(ZeroDivisionError), checkpoint.atomic(file) as draft:
        draft.write_text("2")
        raise ZeroDivisionError
    assert file.read_text() == "1" and [f.name for f in file.parent.iterdir()] == ["b.json"]
