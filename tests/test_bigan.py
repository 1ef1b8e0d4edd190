"""BiGAN and its regressor: nets as released, the inverse objective, who hears of whom."""

import pytest
import torch

from condgen.data.store import Batch
from condgen.errors import BadInput
from condgen.models.bigan import BiGAN, LatentRegressor


def batch(n: int = 8) -> Batch:
    return Batch(2 * torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0)) - 1, {})


def small(cls: type = BiGAN, **options):
    torch.manual_seed(0)
    return cls((1, 8, 8), {}, **{"z_dim": 5, "hidden": 16, **options})


def gradient_of(loss: torch.Tensor, net: torch.nn.Module) -> float:
    found = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True, allow_unused=True)
    return sum(float(g.abs().sum()) for g in found if g is not None)


def test_the_nets_are_those_of_the_released_code():
    model = BiGAN((1, 28, 28), {})
    shapes = {n: tuple(p.shape) for n, p in model.named_parameters()}
    assert shapes == {
        "E.first.weight": (1024, 784), "E.second.weight": (1024, 1024), "E.last.weight": (50, 1024),
        "G.first.weight": (1024, 50), "G.second.weight": (1024, 1024), "G.again.weight": (1024, 50), "G.last.weight": (784, 1024),
        "D.first.weight": (1024, 784), "D.second.weight": (1024, 1024), "D.code.weight": (1024, 50), "D.last.weight": (1, 1024),
    }  # fmt: skip
    assert all(abs(p.detach().std().item() - 0.02) < 2e-3 for n, p in model.named_parameters() if p.numel() > 10_000)


def test_the_code_and_the_prior_lie_between_minus_one_and_one():
    model = small().eval()
    z, prior = model.encode(50 * batch().x, {}), model.prior(5000, {})
    assert z.abs().max() < 1 and z.shape == (8, 5)
    assert prior.abs().max() <= 1 and abs(float(prior.mean())) < 0.02 and float(prior.var()) == pytest.approx(1 / 3, abs=0.02)


def test_z_enters_the_second_layer_of_g_and_of_d_again():
    model = small().eval()
    with torch.no_grad():
        model.G.first.weight.zero_()
        model.D.first.weight.zero_()
    z = model.prior(4, {})
    x = model.decode(z, {})
    assert not torch.allclose(x[0], x[1]), "with the first layer cut, z still moves the picture"
    logits = model.D(torch.zeros(4, 1, 8, 8), z)
    assert not torch.allclose(logits[0], logits[1])


def test_encoder_and_generator_descend_together():
    model = small()
    (turn,) = model.turns(batch(), 0)
    loss = turn["G"]["game"].mean()
    assert gradient_of(loss, model.E) > 0 and gradient_of(loss, model.G) > 0


def test_apart_the_statistics_of_d_are_of_one_kind_of_pair():
    """Shifting the generator's batch as a whole moves its own logits where both kinds share statistics, and none where they do not."""
    for joint, moved in ((True, True), (False, False)):
        model = small(joint_batch=joint)
        model.D.norm.train()
        x, z = batch().x, torch.zeros(8, 5)
        one = model.logits((x, z), (x, z))[0]
        other = model.logits((x, z), (-x, z))[0]
        assert (not torch.allclose(one, other, atol=1e-5)) == moved


def test_a_penalty_beside_batch_norm_is_refused():
    with pytest.raises(BadInput, match="norm to false"):
        small(r1=1.0)


@pytest.mark.parametrize("weight", [0.0, 0.25])
def test_the_regressor_moves_the_generator_only_where_it_is_joint(weight):
    model = small(LatentRegressor, generator_weight=weight)
    (turn,) = model.turns(batch(), 0)
    assert set(turn) == {"D", "G", "E"} and ("regression" in turn["G"]) == bool(weight)
    assert gradient_of(turn["E"]["regression"].sum(), model.E) > 0
    if weight:
        assert torch.allclose(turn["G"]["regression"], 0.25 * turn["E"]["regression"])


def test_the_regression_is_least_where_the_code_is_z():
    """Moved off the logits whose code is z, either way, the regression costs more."""
    model = small(LatentRegressor).eval()
    z = torch.linspace(-0.9, 0.9, 5)[None]
    costs = []
    for off in (0.0, 0.3, -0.3):
        model.E.last = Constant(torch.logit((z + 1) / 2) + off)
        assert off or torch.allclose(model.encode(batch(1).x, {}), z, atol=1e-5)
        costs.append(model.missed(batch(1).x, z).item())
    assert costs[0] < min(costs[1:])


class Constant(torch.nn.Module):
    def __init__(self, value):
        super().__init__()
        self.value = value

    def forward(self, h):
        return self.value.expand(len(h), -1)
