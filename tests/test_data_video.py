"""Clips in and out: what is written is read back, and what is no clip is said to be none."""

import builtins
import struct
import sys

import numpy as np
import pytest

from condgen.data import video
from condgen.errors import BadInput


def moving(n=6, h=48, w=64):
    """A soft ramp of colour that moves a pixel a frame: codecs keep it well."""
    y, x = np.mgrid[:h, :w]
    return [np.stack([(x + i) * 3 % 256, y * 4 % 256, np.full((h, w), 20 * i)], -1).clip(0, 255).astype(np.uint8) for i in range(n)]


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "clip.mp4"
    video.write(path, moving(), 12.5)
    return path


def test_what_is_written_is_read_back_in_its_colours(clip):
    got = video.read(clip)
    assert got.frames.shape == (6, 48, 64, 3) and got.frames.dtype == np.uint8
    assert got.fps == pytest.approx(12.5)
    off = np.abs(got.frames.astype(int) - np.stack(moving())).mean((0, 1, 2))
    assert (off < 12).all()  # red for blue would be off by more than 50
    assert np.abs(got.frames[..., ::-1].astype(int) - np.stack(moving())).mean() > 30


def test_the_same_frames_give_the_same_file(clip, tmp_path):
    video.write(tmp_path / "again.mp4", moving(), 12.5)
    assert (tmp_path / "again.mp4").read_bytes() == clip.read_bytes()


# --- notes ---


def test_a_note_is_found_and_passed_over_by_players(clip, tmp_path):
    noted = tmp_path / "noted.mp4"
    video.write(noted, moving(), 12.5, note="of ours, \u00fc")
    assert video.note_in(noted) == "of ours, \u00fc" and video.note_in(clip) is None
    assert np.array_equal(video.read(noted).frames, video.read(clip).frames) and video.look(noted) == video.look(clip)
    assert noted.read_bytes()[: clip.stat().st_size] == clip.read_bytes()


@pytest.mark.parametrize(
    "tail",
    [
        struct.pack(">I4s", 4, b"free"),  # smaller than its own head
        struct.pack(">I4s", 0, b"mdat") + b"x" * 90,
        struct.pack(">I4s", 400, b"uuid") + b"x" * 16,
        struct.pack(">I4s", 8 + 16, b"uuid") + b"x" * 16,
        struct.pack(">I4s", 1, b"free") + struct.pack(">Q", 2**64 - 1),
        struct.pack(">I4s", 8 + 16 + 1, b"uuid") + video.MARK + b"\xff",  # no words
        b"\0\0",
    ],
)
def test_a_file_that_has_no_note_says_none(tmp_path, tail):
    (tmp_path / "a.mp4").write_bytes(struct.pack(">I4s", 12, b"ftyp") + b"isom" + tail)
    assert video.note_in(tmp_path / "a.mp4") is None


def test_boxes_of_others_and_large_ones_are_passed_over(tmp_path):
    boxes = struct.pack(">I4sQ", 1, b"mdat", 16 + 5) + b"12345" + struct.pack(">I4s", 8 + 16 + 3, b"uuid") + b"u" * 16 + b"abc"
    (tmp_path / "a.mp4").write_bytes(boxes + struct.pack(">I4s", 8 + 16 + 2, b"uuid") + video.MARK + b"hi")
    assert video.note_in(tmp_path / "a.mp4") == "hi"
    assert video.note_in(tmp_path / "b.mp4") is None


def test_a_window_is_the_same_frames(clip):
    whole = video.read(clip).frames
    window = video.read(clip, 2, 5).frames
    assert np.array_equal(window, whole[2:5])
    assert len(video.read(clip, 4, 99).frames) == 2
    assert np.array_equal(np.stack(list(video.frames(clip, 2, 5))), window)


def test_frames_come_one_at_a_time(clip):
    found = video.frames(clip)
    next(found)
    found.close()  # lets go of the file with five frames to come
    assert video.look(clip) == video.Facts(64, 48, 12.5, 6)


@pytest.mark.parametrize("h, w", [(47, 64), (48, 63), (47, 63), (1, 2)])
def test_an_odd_side_grows_by_one(tmp_path, h, w):
    video.write(tmp_path / "odd.mp4", moving(3, h, w), 25)
    got = video.read(tmp_path / "odd.mp4").frames
    assert got.shape == (3, h + h % 2, w + w % 2, 3)
    if w % 2:
        assert np.abs(got[:, :, -1].astype(int) - got[:, :, -2]).mean() < 12


def test_an_error_leaves_nothing_and_keeps_an_older_file(clip, tmp_path):
    before = clip.read_bytes()

    def broken():
        yield from moving(3)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        video.write(clip, broken(), 25)
    assert clip.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]


def test_an_interruption_can_leave_a_shorter_clip(tmp_path):
    with pytest.raises(KeyboardInterrupt), video.Writer(tmp_path / "a.mp4", 25, keeps=True) as out:
        for frame in moving(3):
            out.add(frame)
        raise KeyboardInterrupt
    assert len(video.read(tmp_path / "a.mp4").frames) == 3 and len(list(tmp_path.iterdir())) == 1


def test_a_clip_that_ends_early_is_not_given_its_name(tmp_path, monkeypatch):
    """OpenCV's writer says nothing of a full disk."""
    out = video.Writer(tmp_path / "a.mp4", 25)
    for frame in moving(3):
        out.add(frame)
    out.count += 1
    with pytest.raises(BadInput, match=r"only 3 of 4 frames .* disk may be full"):
        out.close()
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_clip_is_refused(tmp_path, clip, capfd):
    (tmp_path / "not.mp4").write_bytes(b"hello " * 200)
    (tmp_path / "cut.mp4").write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    (tmp_path / "empty.mp4").write_bytes(b"")
    for name in ("not.mp4", "cut.mp4", "empty.mp4"):
        with pytest.raises(BadInput, match=rf"{name} is no clip that can be read"):
            video.frames(tmp_path / name)
    assert capfd.readouterr().err == ""  # neither FFmpeg nor OpenCV speaks past us


def test_what_is_not_there_is_named_with_its_neighbours(clip):
    with pytest.raises(BadInput, match=r"no file .*clap.mp4; beside it are clip.mp4"):
        video.read(clip.with_name("clap.mp4"))
    with pytest.raises(BadInput, match="is a folder"):
        video.look(clip.parent)
    with pytest.raises(BadInput, match="no file 0"):
        video.frames("0")  # a camera, to OpenCV


def test_a_window_behind_the_end_is_refused(clip):
    with pytest.raises(BadInput, match="has no frame 9; it has 6"):
        list(video.frames(clip, 9))
    with pytest.raises(BadInput, match="stop is 2; expected a whole number of at least 3"):
        video.frames(clip, 2, 2)


def test_too_much_for_the_memory_is_refused(clip, monkeypatch):
    monkeypatch.setattr(video, "MAX_BYTES", 3 * 48 * 64 * 3)
    assert len(video.read(clip, 0, 3).frames) == 3
    with pytest.raises(BadInput, match="read a window of at most 3 frames"):
        video.read(clip)


@pytest.mark.parametrize(
    "work, words",
    [
        (lambda p: video.write(p / "a.avi", moving(2), 25), r"'a.avi' ends in '.avi'"),
        (lambda p: video.write(p / "a.mp4", [], 25), "no frames"),
        (lambda p: video.write(p / "a.mp4", moving(2), 0), "fps is 0"),
        (lambda p: video.write(p / "a.mp4", moving(2), float("nan")), "fps is nan"),
        (lambda p: video.write(p / "a.mp4", [np.zeros((8, 8, 3))], 25), "expected uint8"),
        (lambda p: video.write(p / "a.mp4", [np.zeros((8, 8), np.uint8)], 25), "expected uint8"),
        (lambda p: video.write(p / "a.mp4", [*moving(1), *moving(1, 50)], 25), "a clip has one size"),
    ],
)
def test_what_cannot_be_written_is_refused(tmp_path, work, words):
    with pytest.raises(BadInput, match=words):
        work(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_refuses_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        video.write(tmp_path / "file" / "a.mp4", moving(2), 25)


def test_a_missing_opencv_says_how_to_get_it(clip, monkeypatch):
    real = builtins.__import__

    def without(name, *rest):
        if name == "cv2":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.delitem(sys.modules, "cv2", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(BadInput, match=r'pip install "condgen\[video\]"'):
        video.frames(clip)
