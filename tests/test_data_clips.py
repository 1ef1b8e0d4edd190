"""Drawn clips: their flow is that of the layers' paths, warps one frame to the other, and says what is hidden."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import binary_dilation

from condgen.data.clips import LONGEST, SHORTEST, clip
from condgen.errors import BadInput

SEEDS = (0, 1, 2)


def warped(frame: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """A frame read off, bilinearly, at each pixel plus its flow; both (h, w, 3) in [0, 1]."""
    h, w = frame.shape[:2]
    y, x = np.mgrid[:h, :w]
    grid = torch.tensor(np.stack([2 * (x + flow[0]) / (w - 1) - 1, 2 * (y + flow[1]) / (h - 1) - 1], -1))[None].float()
    picture = torch.tensor(frame / 255).permute(2, 0, 1)[None].float()
    return F.grid_sample(picture, grid, align_corners=True, padding_mode="border")[0].permute(1, 2, 0).numpy()


def errors(shown, i: int, j: int) -> np.ndarray:
    return np.abs(warped(shown.frames[i], shown.flow_between(i, j)) - shown.frames[j] / 255).mean(-1)


def rims(shown, frame: int) -> np.ndarray:
    top = shown.top(frame)
    return np.any([binary_dilation(top == k, iterations=2) & (top != k) for k in range(4)], axis=0)


@pytest.mark.parametrize("passing", [False, True])
@pytest.mark.parametrize("seed", SEEDS)
def test_warping_a_frame_gives_the_next(seed, passing):
    shown = clip(seed, 6, 96, passing)
    for i in range(5):
        error, still = errors(shown, i, i + 1), np.abs(shown.frames[i] / 255 - shown.frames[i + 1] / 255).mean()
        seen = ~shown.occluded[i]
        clear = seen & ~rims(shown, i + 1) & ~binary_dilation(shown.occluded[i], iterations=2)
        assert error[seen].mean() < 0.008 and error[clear].mean() < 0.004 and np.quantile(error[clear], 0.99) < 0.015
        assert error[seen].mean() < still / 2 and error[~seen].mean() > 5 * error[seen].mean()
        ahead = errors(shown, i + 1, i)
        assert ahead[~shown.occluded_forward[i]].mean() < 0.008


@pytest.mark.parametrize("seed", SEEDS)
def test_flow_over_many_frames_warps_as_well(seed):
    shown = clip(seed, 12, 96)
    for i, j in ((0, 6), (11, 3), (2, 10)):
        seen = ~shown.occluded_between(i, j)
        assert errors(shown, i, j)[seen].mean() < 0.008 and seen.mean() > 0.5


def test_the_background_moves_by_its_velocity_and_sprites_turn_by_theirs():
    shown = clip(1, 5, 96)
    for i, j in ((0, 1), (1, 0), (0, 4)):
        flow, top = shown.flow_between(i, j), shown.top(j)
        expected = np.array(shown.layers[0].velocity) * (i - j)
        assert np.abs(flow[:, top == 0] - expected[:, None]).max() < 1e-4
        for k, layer in enumerate(shown.layers[1:], 1):
            angle = layer.turn * (i - j)
            inner = (top == k)[:-1, :-1] & (top == k)[1:, :-1] & (top == k)[:-1, 1:]
            across, down = (flow[:, :-1, 1:] - flow[:, :-1, :-1])[:, inner], (flow[:, 1:, :-1] - flow[:, :-1, :-1])[:, inner]
            turned = np.array([[math.cos(angle) - 1, -math.sin(angle)], [math.sin(angle), math.cos(angle) - 1]])
            assert np.abs(across - turned[:, :1]).max() < 1e-4 and np.abs(down - turned[:, 1:]).max() < 1e-4


def test_a_frame_is_where_it_is():
    shown = clip(2, 3, 64)
    assert np.abs(shown.flow_between(1, 1)).max() < 1e-9 and not shown.occluded_between(1, 1).any()


def test_stacks_are_those_between_neighbours():
    shown = clip(0, 4, 64)
    assert shown.frames.shape == (4, 64, 64, 3) and shown.frames.dtype == np.uint8
    assert shown.backward.shape == shown.forward.shape == (3, 2, 64, 64) and shown.backward.dtype == np.float32
    assert shown.occluded.shape == shown.occluded_forward.shape == (3, 64, 64) and shown.occluded.dtype == bool
    assert np.array_equal(shown.backward[1], shown.flow_between(1, 2)) and np.array_equal(shown.forward[1], shown.flow_between(2, 1))
    assert np.array_equal(shown.occluded[2], shown.occluded_between(2, 3))
    assert np.array_equal(shown.occluded_forward[2], shown.occluded_between(3, 2))


@pytest.mark.parametrize("seed", SEEDS)
def test_hidden_pixels_are_those_whose_nearest_pixel_shows_something_else(seed):
    shown = clip(seed, 5, 96, passing=True)
    for i, j in ((1, 2), (2, 1), (0, 3)):
        flow, hidden, was = shown.flow_between(i, j), shown.occluded_between(i, j), shown.top(i)
        y, x = np.mgrid[:96, :96]
        at_x, at_y = x + flow[0], y + flow[1]
        out = (at_x < 0) | (at_y < 0) | (at_x > 95) | (at_y > 95)
        near = was[np.rint(at_y).astype(int).clip(0, 95), np.rint(at_x).astype(int).clip(0, 95)]
        other = out | (near != shown.top(j))
        assert hidden[out].all() and (other != hidden).mean() < 0.015 and 0.01 < hidden.mean() < 0.4
        assert hidden[~binary_dilation(~other, iterations=2)].all(), "what is well inside of the hidden is hidden"


@pytest.mark.parametrize("seed, frames", [(0, 12), (1, 12), (2, 20)])
def test_what_a_passing_sprite_hid_comes_back_within_four_frames(seed, frames):
    shown = clip(seed, frames, 128, passing=True)
    for j in range(6, frames - 1):
        back = shown.reappeared(j - 4, j)
        assert back.sum() > 80 and errors(shown, j - 4, j)[back].mean() < 0.03
        assert (shown.top(j)[back] < 3).all() and shown.occluded_between(j - 1, j)[back].all()
    start, end = (np.nonzero((shown.top(k) == 3).any(0))[0].mean() for k in (1, frames - 2))
    assert start < 0.25 * 128 and end > 0.75 * 128, "it crosses the picture"


def test_an_estimator_that_knows_nothing_of_the_layers_finds_the_same_flow():
    cv2 = pytest.importorskip("cv2", reason='pip install "condgen[video]"')
    shown = clip(0, 3, 128)
    one, two = (cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in shown.frames[:2])
    found = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(two, one, None).transpose(2, 0, 1)
    off = np.hypot(*(found - shown.backward[0]))
    assert np.median(off) < 0.15 and np.median(np.hypot(*shown.backward[0])) > 0.5


def test_textures_have_no_waves_that_a_warp_would_miss():
    for layer in clip(0, 2, 64).layers:
        length = 2 * math.pi / np.hypot(*layer.waves.T)
        assert SHORTEST <= length.min() and length.max() <= LONGEST
        assert np.allclose((np.abs(layer.tint) ** 2).sum(0) / 2, 0.13**2)
    assert 15 < clip(0, 2, 128).frames[0][..., 0].std() < 60


def test_a_seed_is_one_clip_and_bad_numbers_are_refused():
    assert np.array_equal(clip(3, 3, 32).frames, clip(3, 3, 32).frames)
    assert not np.array_equal(clip(3, 3, 32).frames, clip(4, 3, 32).frames)
    for bad, said in (({"seed": -1}, "seed is -1"), ({"frames": 1}, "frames is 1"), ({"size": 16}, "size of a clip, in px, is 16")):
        with pytest.raises(BadInput, match=said):
            clip(**{"seed": 0, **bad})
    with pytest.raises(BadInput, match="frame is 3; expected a whole number of at most 2"):
        clip(0, 3, 32).flow_between(0, 3)
