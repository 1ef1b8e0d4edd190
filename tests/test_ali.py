"""ALI, its semi-supervised form and its two baselines: layer tables, the game's algebra, who hears of whom."""

import math

import pytest
import torch
import torch.nn.functional as F

from condgen.conditions import Attributes, Label
from condgen.data.store import Batch
from condgen.errors import BadInput
from condgen.models.ali import ALI
from condgen.models.posthoc import PostHoc
from condgen.models.semiali import SemiALI
from condgen.networks.inference import TABLES, Table
from condgen.objectives.games import GAMES, swapped

DIGIT = {"digit": Label(("zero", "one", "two"))}


def pictures(n: int = 6, shape: tuple[int, ...] = (1, 8, 8)) -> Batch:
    g = torch.Generator().manual_seed(0)
    return Batch(2 * torch.rand(n, *shape, generator=g) - 1, {"digit": torch.arange(n) % 3})


def gradient_of(loss: torch.Tensor, net: torch.nn.Module) -> float:
    """The summed size of the loss's gradient in a net; 0 where it is not reached."""
    found = torch.autograd.grad(loss, list(net.parameters()), retain_graph=True, allow_unused=True)
    return sum(float(g.abs().sum()) for g in found if g is not None)


# --- layer tables ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name, sides", [("svhn", [28, 13, 10, 4, 1, 1]), ("cifar", [28, 13, 10, 4, 1, 1]), ("celeba", [63, 29, 13, 4, 1])])
def test_a_tables_sides_shrink_to_one_and_grow_from_one(name, sides):
    table = TABLES[name]
    shape = (3, table.side, table.side)
    model = ALI(shape, {}, z_dim=8, nets=name, maps=0.125).eval()
    x = torch.zeros(2, *shape)
    assert [h.shape[-1] for h in model.E.hidden(x, {})] == sides
    assert [h.shape[1] for h in model.E.hidden(x, {})] == [n // 8 for *_, n in table.encoder]
    assert model.decode(torch.zeros(2, 8), {}).shape == x.shape and model.encode(x, {}).shape == (2, 8)


def test_the_svhn_features_are_5376_numbers_not_the_8960_of_the_paper():
    """4096 + 512 + 512 of the last three hidden layers, 256 of mu."""
    model = ALI((3, 32, 32), {}, z_dim=256, nets="svhn").eval()
    assert model.features(torch.zeros(1, 3, 32, 32)).shape == (1, 5376)


def test_biases_are_where_the_released_code_has_them():
    model = ALI((3, 32, 32), {}, z_dim=8, nets="svhn", maps=0.125)
    norms = torch.nn.BatchNorm1d | torch.nn.BatchNorm2d
    has = {n for n, p in model.named_parameters() if n.endswith("bias") and not isinstance(owner(model, n), norms)}
    assert has == {"D.picture.0.1.bias", "E.last.bias", "G.bias"}
    assert model.G.bias.shape == (3, 32, 32), "the picture's is its own for each pixel"


def owner(model: torch.nn.Module, name: str) -> torch.nn.Module:
    return model.get_submodule(name.rpartition(".")[0])


def test_a_tables_decoder_begins_with_the_log_odds_of_the_mean_picture():
    model, batch = ALI((1, 32, 32), {}, z_dim=4, nets="svhn", maps=0.125), pictures(20, (1, 32, 32))
    model.start(batch)
    with torch.no_grad():
        model.G.last.weight.zero_()
    assert torch.allclose(model.eval().decode(torch.zeros(1, 4), {})[0], batch.x.mean(0), atol=1e-5)


def test_cifars_discriminator_is_maxout_without_batch_norm():
    svhn, cifar = (ALI((3, 32, 32), {}, z_dim=8, nets=n, maps=0.125).D for n in ("svhn", "cifar"))
    norms = [sum(isinstance(m, torch.nn.BatchNorm2d) for m in d.modules()) for d in (svhn, cifar)]
    drops = [m.p for m in cifar.modules() if isinstance(m, torch.nn.Dropout)]
    assert norms == [4, 0]
    assert sorted(set(drops)) == [0.2, 0.5] and drops.count(0.2) == 2, "on the inputs x and z .2, elsewhere .5"


def test_a_table_of_another_side_is_refused():
    with pytest.raises(BadInput, match="32 x 32 px"):
        ALI((1, 28, 28), {}, nets="svhn")
    with pytest.raises(BadInput, match="batch norm"):
        ALI((1, 32, 32), {}, nets="svhn", r1=1.0)
    with pytest.raises(BadInput, match="Gaussian"):
        ALI((1, 32, 32), {}, nets="svhn", posterior="noise")
    with pytest.raises(BadInput, match="'svhm': did you mean 'svhn'"):
        ALI((1, 32, 32), {}, nets="svhm")


def test_conditions_join_a_tables_nets_behind_the_features():
    schema = {"face": Attributes(tuple("abcd"), (0.0,) * 4, (1.0,) * 4, (True,) * 4)}
    model = ALI((3, 64, 64), schema, z_dim=8, nets="celeba", maps=0.0625).eval()
    assert model.E.last.in_features == 512 // 16 + 256
    assert isinstance(TABLES["celeba"], Table) and model.G.convs[0][0].in_channels == 8 + 256


# --- the game -------------------------------------------------------------------------------------------------------------


def test_the_swapped_game_is_the_papers():
    q, p = torch.randn(2, 100)
    assert torch.allclose(swapped(GAMES["non_saturating"], q, p), F.softplus(q) + F.softplus(-p))
    assert torch.allclose(swapped(GAMES["minimax"], q, p), -(F.softplus(-q) + F.softplus(p))), "minus D's loss"
    assert torch.allclose(swapped(GAMES["relativistic"], q, p), F.softplus(q - p))
    assert torch.allclose(swapped(GAMES["wasserstein"], q, p), q - p)


def test_both_players_move_in_one_turn_and_the_encoder_hears_of_d():
    model = ALI((1, 8, 8), {}, z_dim=4, width=8)
    (turn,) = model.turns(pictures(), 0)
    assert set(turn) == {"D", "G"}
    loss = turn["G"]["game"].mean()
    assert gradient_of(loss, model.E) > 0 and gradient_of(loss, model.G) > 0


def test_gradients_meet_the_pair_and_not_its_half():
    """R1 is of x and z together: on D(x, z) = |x|^2 + 3 |z|^2 it is gamma/2 (4 |x|^2 + 36 |z|^2)."""
    model = ALI((2,), {}, z_dim=2, width=8, r1=3.0)
    model.D = Squares()
    x, z = torch.randn(2, 5, 2)
    found = model.penalties((x, z), (x, z), {})
    assert torch.allclose(found["r1"], 1.5 * (4 * x.square().sum(1) + 36 * z.square().sum(1)), rtol=1e-5) and "r2" not in found


class Squares(torch.nn.Module):
    def forward(self, x, z, c):
        return x.square().sum(1, keepdim=True) + 3 * z.square().sum(1, keepdim=True)


def test_the_cycle_term_is_the_mean_squared_error_a_pixel():
    model, batch = ALI((1, 8, 8), {}, z_dim=4, width=8, cycle=5.0), pictures()
    model.noise.seed(0)
    z, code = model.prior(6, {}), model.draw(batch.x, {})
    model.noise.seed(0)
    (turn,) = model.turns(batch, 0)
    assert z.shape == code.shape
    expected = (model.G(code, {}) - batch.x).square().mean((1, 2, 3))
    assert torch.allclose(turn["G"]["cycle"], 5 * expected, rtol=1e-4)


def test_sigma_is_kept_from_exploding():
    model = ALI((2,), {}, z_dim=2, width=8)
    with torch.no_grad():
        model.E.layers[-1].weight.mul_(1e6)
    assert model.moments(torch.randn(5, 2), {})[1].abs().max() <= 7


def test_noise_joined_to_x_moves_the_code_and_encoding_leaves_it_out():
    model = ALI((2,), {}, z_dim=2, width=8, posterior="noise").eval()
    x = torch.randn(4, 2)
    assert not torch.equal(model.draw(x, {}), model.draw(x, {})) and torch.equal(model.encode(x, {}), model.encode(x, {}))


def test_features_of_an_encoder_that_reads_conditions_are_refused():
    with pytest.raises(BadInput, match="--conditions none"):
        ALI((1, 8, 8), DIGIT, z_dim=4, width=8).features(torch.zeros(1, 1, 8, 8))


# --- K + 1 classes --------------------------------------------------------------------------------------------------------


def semi(**options):
    model = SemiALI((1, 8, 8), DIGIT, **{"labelled": 6, "z_dim": 4, "width": 8, **options})
    model.start(pictures(12))
    return model


def test_with_a_zero_logit_for_fakes_the_game_is_the_cross_entropy_of_k_plus_1_classes():
    q = torch.randn(7, 3)
    whole = torch.cat([q, torch.zeros(7, 1)], 1)
    any_of_k = -(torch.log_softmax(whole, 1)[:, :3].logsumexp(1))
    fake = F.cross_entropy(whole, torch.full((7,), 3), reduction="none")
    game = GAMES["non_saturating"]
    assert torch.allclose(game.d(q.logsumexp(1), q.logsumexp(1)), any_of_k + fake, atol=1e-6)


def test_the_penalty_is_of_the_number_that_the_game_is_played_on():
    """On K logits that are all equal to f(x, z), their logsumexp has f's own gradient; a single logit silenced changes it."""
    model = semi(r1=2.0)
    x, z = pictures().x, torch.zeros(6, 4)
    joint = torch.cat([x.flatten(1), z], 1).requires_grad_()
    answers = model.D(joint[:, :-4].unflatten(1, (1, 8, 8)), joint[:, -4:], {})
    (gradient,) = torch.autograd.grad(answers.logsumexp(1).sum(), joint)
    found = model.penalties((x, z), (x, z), {})["r1"]
    assert torch.allclose(found, gradient.square().sum(1), rtol=1e-4) and found.min() > 0


def test_only_the_labelled_are_ever_named():
    model, batch = semi(), pictures(12)
    assert model.labelled_y.tolist() == [0, 0, 1, 1, 2, 2]
    assert torch.equal(model.labelled_x, batch.x[[0, 3, 1, 4, 2, 5]])
    lied = Batch(batch.x, {"digit": batch.c["digit"].flip(0)})
    one, two = ([v.sum().item() for t in model_turn(model, b).values() for v in t.values()] for b in (batch, lied))
    assert one == two, "labels of the batch are not read"


def model_turn(model, batch):
    model.noise.seed(0)
    torch.manual_seed(0)
    (turn,) = model.turns(batch, 0)
    return turn


def test_a_semi_supervised_model_learns_its_labels():
    model, batch = semi(shift=0), pictures(12)
    optimizer = torch.optim.Adam(model.D.parameters(), lr=5e-3)
    for _ in range(40):
        optimizer.zero_grad()
        model.misnamed(32).mean().backward()
        optimizer.step()
    rows = [0, 3, 1, 4, 2, 5]
    assert model.eval().classify(batch.x[rows]).argmax(1).tolist() == model.labelled_y.tolist()


def test_what_cannot_be_semi_supervised_is_refused():
    with pytest.raises(BadInput, match="exactly one label"):
        SemiALI((1, 8, 8), {})
    for labelled in (2, 8):
        with pytest.raises(BadInput, match=f"labelled is {labelled}"):
            SemiALI((1, 8, 8), DIGIT, labelled=labelled)
    with pytest.raises(BadInput, match="batch norm"):
        SemiALI((1, 32, 32), DIGIT, labelled=3, nets="svhn")
    with pytest.raises(BadInput, match="'two' has 0"):
        SemiALI((1, 8, 8), DIGIT, labelled=3).start(Batch(torch.zeros(4, 1, 8, 8), {"digit": torch.tensor([0, 1, 0, 1])}))
    with pytest.raises(BadInput, match="no label 'digit'"):
        SemiALI((1, 8, 8), DIGIT, labelled=3).start(Batch(torch.zeros(4, 1, 8, 8), {}))


def test_moved_pictures_are_the_same_but_for_their_place():
    model, x = semi(shift=2), torch.zeros(9, 1, 8, 8)
    x[:, :, 4, 4] = 1.0
    moved = model.moved(x)
    assert torch.equal(moved.sum((1, 2, 3)), torch.ones(9))
    places = {divmod(int(p.flatten().argmax()), 8) for p in moved}
    assert len(places) > 1 and all(2 <= r <= 6 and 2 <= k <= 6 for r, k in places)


# --- baselines ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inference", ["regression", "adversarial"])
def test_the_generator_never_hears_of_the_encoder(inference):
    model = PostHoc((2,), {}, inference=inference, z_dim=2, width=8)
    (turn,) = model.turns(Batch(torch.randn(6, 2), {}), 0)
    theirs = torch.stack(list(turn["E"].values())).sum()
    assert gradient_of(theirs, model.E) > 0 and gradient_of(theirs, model.G) == 0
    assert gradient_of(turn["G"]["game"].sum(), model.E) == 0


def test_the_learned_inverse_of_a_fixed_generator_is_found():
    """On a generator that stands still, regression brings |z - E(G(z))|^2 well below the variance of z."""
    torch.manual_seed(0)
    model = PostHoc((2,), {}, z_dim=2, width=16, inference="regression")
    model.G = Doubled()
    optimizer, batch = torch.optim.Adam(model.E.parameters(), lr=1e-2), Batch(torch.randn(128, 2), {})
    for step in range(150):
        model.noise.seed(step)
        (turn,) = model.turns(batch, step)
        optimizer.zero_grad()
        turn["E"]["regression"].mean().backward()
        optimizer.step()
    z = torch.randn(500, 2)
    assert (model.eval().encode(2 * z, {}) - z).square().sum(1).mean() < 0.2 < 2


class Doubled(torch.nn.Module):
    def forward(self, z, c):
        return 2 * z


def test_the_minimax_value_of_a_blind_critic_is_minus_log_4():
    model = ALI((2,), {}, z_dim=2, width=8, game="minimax")
    with torch.no_grad():
        model.D.last.weight.zero_()
        model.D.last.bias.zero_()
    (turn,) = model.turns(Batch(torch.randn(6, 2), {}), 0)
    assert turn["G"]["game"].mean().item() == pytest.approx(-math.log(4), abs=1e-6)
