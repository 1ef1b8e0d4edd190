"""Contrast normalisation and Gauthier's protocol: closed forms, and the measured control rows of LFWcrop."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Generator

from condgen.errors import BadInput
from condgen.evaluation.gcn import gaussian_of, gcn
from condgen.evaluation.likelihood import parzen
from condgen.evaluation.measuring import Measuring
from condgen.evaluation.protocols import chosen, evaluate
from painter import RUN, TEST, TRAIN, Painter


def test_rows_have_no_mean_and_the_norm():
    x = torch.rand(20, 3, 8, 8, generator=Generator().manual_seed(0))
    found = gcn(x)
    assert found.shape == (20, 192) and found.dtype == torch.float64
    assert torch.allclose(found.norm(dim=1), torch.full((20,), 55.0, dtype=torch.float64), atol=1e-12)
    assert float(found.mean(1).abs().max()) < 1e-13
    assert torch.allclose(gcn(3 * x.double() - 1), gcn(x.double()))  # blind to brightness and contrast
    assert torch.allclose(gcn(x, norm=1.0) * 55, found)


def test_an_even_picture_is_zero():
    assert torch.equal(gcn(torch.full((2, 1, 4, 4), 0.5)), torch.zeros(2, 16, dtype=torch.float64))


def test_gaussian_has_the_mean_and_the_largest_variances():
    spread = torch.tensor([3.0, 0.1, 2.0, 0.2, 0.3, 0.1])
    rows = torch.randn(4000, 6, generator=Generator().manual_seed(0), dtype=torch.float64) * spread + 4
    drawn = gaussian_of(rows, 2, 20000)
    expected = torch.zeros(6, 6, dtype=torch.float64)
    expected[0, 0], expected[2, 2] = rows.var(0)[[0, 2]]
    assert torch.allclose(drawn.mean(0), rows.mean(0), atol=0.1)
    assert torch.allclose(drawn.T.cov(), expected, atol=0.35)
    assert torch.linalg.matrix_rank(drawn[:50] - rows.mean(0)) == 2
    assert torch.equal(drawn, gaussian_of(rows, 2, 20000)) and not torch.equal(drawn, gaussian_of(rows, 2, 20000, seed=1))


def test_more_components_than_there_are_is_refused():
    with pytest.raises(BadInput, match="components is 7"):
        gaussian_of(torch.rand(30, 6), 7, 10)


def test_grid_alone_finds_the_likelihood_of_a_known_gaussian():
    """Within half a nat of minus its entropy, without the refinement that Gauthier's protocol does not have."""
    rs = np.random.RandomState(1)
    samples, valid, test = (0.5 * rs.randn(n, 3) for n in (5000, 500, 2000))
    closed = -3 * np.log(0.5 * np.sqrt(2 * np.pi * np.e))
    assert parzen(samples, valid, test, refine=0).mean == pytest.approx(closed, abs=0.5)


# --- the metric -----------------------------------------------------------------------------------------------------------


def test_it_is_a_negative_likelihood_beside_a_gaussian():
    found = evaluate(Painter(), RUN, metrics=["parzen_gcn"], n=300, train=TRAIN, test=TEST)["metrics"]["parzen_gcn"]
    assert found["value"] == pytest.approx(found["ceiling"], abs=60)
    assert "|n=300/200|grid of widths|sigma=" in found["provenance"] and "|valid=67 of the train tail|" in found["provenance"]
    assert "control=Gaussian of 20 components|s.e.=" in found["provenance"]
    worse = evaluate(Painter(fault="collapsed"), RUN, metrics=["parzen_gcn"], n=300, train=TRAIN, test=TEST)["metrics"]["parzen_gcn"]
    assert worse["value"] > found["value"] + 50
    assert "parzen_gcn" not in chosen(Painter(), None)


def test_samples_are_drawn_under_conditions_as_in_training():
    """Those of training rows are known by heart, so they are training pictures; under any other condition the model draws an even gray."""

    class ByHeart(Painter):
        def decode(self, z, c):
            apart = torch.cdist(c["look"], TRAIN.c["look"]).min(1)
            return torch.where((apart.values < 1e-3)[:, None, None, None], TRAIN.x[apart.indices], 0.0)

    found = evaluate(ByHeart(), RUN, metrics=["parzen_gcn"], n=300, train=TRAIN, test=TEST)["metrics"]["parzen_gcn"]
    assert found["value"] == pytest.approx(found["ceiling"], abs=40)
    assert "|conditions=training rows|ceiling=" in found["provenance"] and "classes as in" not in found["provenance"]


def test_a_validation_split_chooses_the_width(tmp_path):
    for split, n in SIZES.items():
        (tmp_path / "shades" / split).mkdir(parents=True)
        for i in range(n):
            _write(np.random.RandomState(100 * n + i).randint(0, 255, (8, 8), dtype=np.uint8), tmp_path / "shades" / split / f"{i:03}.png")
    run = replace(RUN, data=str(tmp_path / "shades"))
    measuring = Measuring(Painter((1, 8, 8), {}), run, n=20)
    valid, kept, said = measuring.width_parts()
    assert (len(valid), len(kept), said) == (12, 40, "valid=12")
    assert Measuring(Painter(), RUN, train=TRAIN, test=TEST).validation is None


SIZES = {"train": 40, "validation": 12, "test": 10}


def _write(picture, file):
    image = pytest.importorskip("PIL.Image")
    image.fromarray(picture).save(file)


# --- the rows of the reference --------------------------------------------------------------------------------------------

NEEDED = ("lfwcrop32/images32.npz", "lfw64/meta.npz")
WIDTHS = (0.1 * 10 ** (6 / 9), 0.1 * 10 ** (7 / 9), 0.1 * 10 ** (8 / 9))
"""Of the grid, those about the ones that are chosen: the others cost time and nothing else."""


@pytest.fixture(scope="module")
def faces():
    """Contrast-normalised rows of Gauthier's three splits, all 12,000, 571 and 572, and what the mean of the first is."""
    root = Path(os.environ.get("CONDGEN_DATA", "no-data"))
    if missing := [name for name in NEEDED if not (root / name).is_file()]:
        pytest.skip(f"$CONDGEN_DATA lacks {', '.join(missing)}")
    with np.load(root / NEEDED[0]) as pictures, np.load(root / NEEDED[1]) as meta:
        x, split = pictures["x"], meta["gauthier_split"]
    return [gcn(torch.from_numpy(x[split == k]).permute(0, 3, 1, 2)) for k in range(3)]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("row", "expected", "sigma"), [("mean", 3398, 0.774), ("real", 2839, 0.599), ("pca-20", 2612, 0.599), ("pca-100", 3006, 0.599)]
)
def test_control_rows_of_the_reference(faces, row, expected, sigma):
    train, valid, test = faces
    samples = {
        "mean": lambda: train.mean(0, keepdim=True),
        "real": lambda: train[:10000],
        "pca-20": lambda: gaussian_of(train, 20, 10000),
        "pca-100": lambda: gaussian_of(train, 100, 10000),
    }[row]()
    found = parzen(samples, valid, test, WIDTHS, refine=0)
    assert -found.mean == pytest.approx(expected, abs=5)
    assert found.sigma == pytest.approx(sigma, abs=5e-4)
