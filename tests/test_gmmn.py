"""Moment matching: the objective by hand, its gradient, and that both forms learn a distribution."""

from dataclasses import replace

import pytest
import torch

from condgen.data.store import Batch, Content, Dataset
from condgen.errors import BadInput
from condgen.model import Optimizer, Run
from condgen.models.gmmn import GMMN, GMMNAE, PRESETS, root_mmd
from condgen.objectives.divergences import mmd2
from condgen.training import loop


def test_the_squared_discrepancy_by_hand():
    x, y = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0]])

    def k(d, sigmas=(1.0, 2.0)):
        return sum(torch.exp(torch.tensor(-(d**2) / (2 * s**2))) for s in sigmas)

    expected = (2 * k(0.0) + 2 * k(2.0)) / 4 - 2 * (2 * k(1.0)) / 2 + k(0.0)
    assert mmd2(x, y, (1.0, 2.0)).item() == pytest.approx(expected.item(), abs=1e-6)
    assert mmd2(x, x, (1.0,)).item() == pytest.approx(0.0, abs=1e-6)


def test_the_loss_is_its_root_for_each_sample():
    x, y = torch.randn(5, 3), torch.randn(5, 3)
    assert root_mmd(x, y, (1.0,)).tolist() == pytest.approx([mmd2(x, y, (1.0,)).sqrt().item()] * 5, rel=1e-3)
    same = x.clone().requires_grad_()
    root_mmd(x, same, (1.0,)).mean().backward()
    assert same.grad.isfinite().all(), "at 0 the root has a gradient still"


def two_blobs(n: int = 3000) -> Dataset:
    g = torch.Generator().manual_seed(0)
    x = 2.0 * (2 * torch.randint(2, (n, 1), generator=g) - 1) + 0.3 * torch.randn(n, 2, generator=g)
    return Dataset("blobs", "train", Content(x.numpy(), {}, {}))


@pytest.mark.parametrize(
    "model",
    [
        GMMN((2,), hidden=(64, 64), sigmas=(0.5, 1.0, 2.0)),
        GMMNAE((2,), hidden=(64, 64), ae_hidden=(64,), code_dim=2, ae_steps=300, dropout=(0.0, 0.0), sigmas=(0.1, 0.3, 1.0)),
    ],
)
def test_both_modes_are_drawn(model):
    torch.manual_seed(0)
    run = Run(
        f"gmmn.{type(model).__name__}", "blobs", optimizers={"*": Optimizer(lr=3e-3)}, batch=256, steps=600, precision="32", log_every=0
    )
    for _ in loop.train(replace(run, sample_every=0, save_every=0), model, two_blobs()):
        pass
    x = model.sample(n=500, seed=0)
    right = (x[:, 0] > 0).float().mean().item()
    assert 0.35 < right < 0.65, "each mode half of the time"
    assert ((x.abs() - 2).abs() < 1).all(1).float().mean() > 0.8, "near the modes"


def test_the_autoencoder_rests_after_its_steps():
    torch.manual_seed(0)
    model = GMMNAE((1, 8, 8), hidden=(8,), ae_hidden=(8,), code_dim=3, ae_steps=2)
    model.noise.seed(0)
    batch = Batch(torch.rand(4, 1, 8, 8), {})
    assert [[set(t) for t in model.turns(batch, step)] for step in (0, 1, 2)] == [[{"A"}, {"G"}], [{"A"}, {"G"}], [{"G"}]]
    assert model.E.training, "codes are taken without dropout, and the mode is put back"


def test_the_released_layers():
    model = GMMN((1, 28, 28), **PRESETS["gmmn-mnist"].options)
    assert [m.out_features for m in model.G.layers if isinstance(m, torch.nn.Linear)] == [64, 256, 256, 1024, 784]
    assert [s**2 for s in model.sigmas] == pytest.approx([2, 5, 10, 20, 40, 80]) and model.z_dim == 10
    model.noise.seed(0)
    z = model.prior(1000, {})
    assert z.min() >= -1 and z.max() <= 1 and z.min() < -0.9, "uniform in [-1, 1]"
    coded = GMMNAE((1, 28, 28), **PRESETS["gmmn-ae-mnist"].options)
    assert [m.out_features for m in coded.E if isinstance(m, torch.nn.Linear)] == [1024, 32]


@pytest.mark.parametrize("model", [GMMN, GMMNAE])
@pytest.mark.parametrize("sigmas", [(), (1.0, 0.0)])
def test_widths_must_be_positive(model, sigmas):
    with pytest.raises(BadInput, match="expected positive widths"):
        model((2,), sigmas=sigmas)
