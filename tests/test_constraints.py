"""Constraints as energies and as words, and any model's latents moved until its samples obey."""

import hashlib
import math

import numpy as np
import pytest
import torch

from condgen.conditions import Attributes, Label, Text
from condgen.constraints import All, Constraint, Ink, Near, Reward, checked, holds, ink, load_function, parse
from condgen.editing.constraints import attribute_critic, constrain, edit, latent_critic, realism_critic
from condgen.errors import BadInput
from condgen.models.ae import AE
from condgen.models.cvae import CVAE
from condgen.models.vae import VAE
from condgen.networks.latent import Namer

DIGIT = {"digit": Label(("zero", "one"))}


def grey(*shares: float) -> torch.Tensor:
    """Even pictures with these shares of ink."""
    return torch.tensor([2 * s - 1 for s in shares])[:, None, None, None].expand(len(shares), 1, 4, 4).clone()


# --- energies -----------------------------------------------------------------------------------------------------------------


def test_ink_is_the_mean_of_the_sheet():
    x = grey(0, 0.25, 1)
    x[1, 0, :2] = 1  # half of it black
    assert ink(x).tolist() == [0, 0.625, 1]
    assert Ink(0.3).energy(grey(0.1, 0.3, 0.9)).tolist() == pytest.approx([0.2, 0, 0], abs=1e-6)
    assert Ink(most=0.3).energy(grey(0.1, 0.3, 0.9)).tolist() == pytest.approx([0, 0, 0.6], abs=1e-6)
    assert holds(Ink(0.2, 0.5), grey(0.1, 0.25, 0.5, 0.6)).tolist() == [False, True, True, False]


def test_near_is_a_distance_of_pictures():
    near = Near(grey(0.5)[0], within=0.5)
    assert near.energy(grey(0.5, 0.75, 1)).tolist() == pytest.approx([0, 0, 0.5], abs=1e-6)
    with pytest.raises(BadInput, match=r"\(1, 2, 2\) beside a picture of \(1, 4, 4\)"):
        near.energy(torch.zeros(1, 1, 2, 2))
    x = near.picture[None].clone().requires_grad_()
    near.energy(x).sum().backward()
    assert x.grad.isfinite().all(), "the root has a finite gradient where the picture is met"


@pytest.mark.parametrize(
    "function, each",
    [
        (lambda x: ink(x) > 0.4, False),
        (lambda x: (ink(x) > 0.4).numpy(), False),
        (lambda x: [float(v) > 0.4 for v in ink(x)], False),
        (lambda x: bool(ink(x[None]) > 0.4), True),
        (lambda x: (ink(x[None]) > 0.4).float()[0], True),
    ],
)
def test_a_reward_may_be_any_python(function, each):
    reward = Reward(function, each=each)
    assert isinstance(reward, Constraint) and holds(reward, grey(0.1, 0.5, 0.9)).tolist() == [False, True, True]
    assert reward.energy(grey(0.1, 0.9)).tolist() == [0.5, 0]


def test_a_reward_with_a_bound_holds_from_there_on():
    assert holds(Reward(ink, 0.3), grey(0.2, 0.3001, 0.9)).tolist() == [False, True, True]


@pytest.mark.parametrize(
    "function, says",
    [
        (lambda x: ink(x).mean(), r"answers \(\) for 2 samples; expected \(2,\).*each=True"),
        (lambda x: "much", "answers 'much'; expected numbers"),
        (lambda x: None, "answers None; expected numbers"),
        (lambda x: ink(x) * math.nan, "not finite"),
    ],
)
def test_a_reward_that_answers_nonsense_is_told_so(function, says):
    with pytest.raises(BadInput, match=says):
        checked(Reward(function), grey(0, 1))


def test_energies_below_zero_are_refused():
    class Odd:
        def energy(self, x):
            return -ink(x)

    with pytest.raises(BadInput, match="below 0"):
        checked(Odd(), grey(0.5))


# --- words --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, expected",
    [("ink>=0.3", Ink(0.3)), (" ink <= 0.2 ", Ink(most=0.2)), ("ink>=.1,ink<=.4", All((Ink(0.1), Ink(most=0.4)))), ("ink>=0", Ink(0.0))],
)
def test_rules_are_read(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text, says",
    [
        ("imk>=0.3", r"unknown constraint 'imk': did you mean 'ink'\?"),
        ("ink", "has no bound; write 'ink>=0.3'"),
        ("ink>0.3", "cannot be read; write 'ink>=0.3'"),
        ("ink==0.3", "cannot be read"),
        ("ink>=much", "the bound 'much' of 'ink>=much' is no number"),
        ("ink>=nan", "'nan'.*no number"),
        ("ink>=1.5", r"least is 1.5; expected a number from 0 to 1"),
        ("", "cannot be read"),
        ("ink>=0.3,", "cannot be read"),
        ("mine.py:f", "would run a file; here only rules are read: ink"),
    ],
)
def test_what_is_no_rule_is_refused(text, says):
    with pytest.raises(BadInput, match=says):
        parse(text)


def test_bounds_that_exclude_each_other_are_refused():
    with pytest.raises(BadInput, match=r"at least 0\.5 and at most 0\.2 of ink"):
        Ink(0.5, 0.2)


@pytest.fixture
def mine(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def dark(x):\n    return -x.flatten(1).mean(1)\n\nLIMIT = 3\n")
    return file


def test_a_users_own_function_is_read_where_files_are_allowed(mine):
    assert holds(parse(f"{mine}:dark", files=True), grey(0.1, 0.5, 0.9)).tolist() == [True, False, False]
    assert holds(parse(f"{mine}:dark>=-0.1", files=True), grey(0.1, 0.5, 0.9)).tolist() == [True, True, False]
    assert holds(parse(f"{mine}:dark<=-0.5", files=True), grey(0.1, 0.5, 0.9)).tolist() == [False, False, True]


@pytest.mark.parametrize(
    "place, says",
    [
        ("{}:drak", r"unknown function of .*mine\.py 'drak': did you mean 'dark'\?"),
        ("{}:LIMIT", "unknown function"),
        ("{}:", "names no function; write file.py:function"),
        ("nowhere.py:f", r"there is no Python file nowhere\.py"),
        ("{}.txt:f", "there is no Python file"),
    ],
)
def test_a_function_that_is_not_there_is_told_by_name(mine, place, says):
    with pytest.raises(BadInput, match=says):
        load_function(place.format(mine))


def test_a_file_that_fails_says_why(tmp_path):
    file = tmp_path / "broken.py"
    file.write_text("import nowhere_at_all\n")
    with pytest.raises(BadInput, match="cannot be run: ModuleNotFoundError"):
        load_function(f"{file}:f")


# --- any model's latents ------------------------------------------------------------------------------------------------------


def built(cls=VAE, schema=None, **options):
    """A decoder that is affine, so that every amount of ink can be reached."""
    torch.manual_seed(0)
    return cls((1, 4, 4), schema or {}, z_dim=3, hidden=(), **options).eval()


def digest(model):
    return hashlib.sha256(b"".join(v.numpy().tobytes() for v in model.state_dict().values())).hexdigest()


def last(steps):
    *_, end = steps
    return end


@pytest.mark.parametrize("model", [built(), built(AE), built(CVAE, DIGIT)], ids=["vae", "ae", "cvae"])
def test_latents_are_moved_until_their_samples_obey(model):
    c = {"digit": torch.tensor([0, 1, 1, 0])} if model.schema else None
    z, before = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)), digest(model)
    model.train()
    values = c or {}
    amount = ink(model.decode(z, values).detach())
    rule = Ink(float(amount.sort().values[-2:].mean()))  # one obeys already
    steps = list(constrain(model, z, c, rule, lr=0.05))
    assert [s.step for s in steps] == list(range(len(steps))) and len(steps) > 2
    assert steps[-1].reached.all() and holds(rule, model.decode(steps[-1].z, values).detach()).all()
    obeyed = amount >= rule.least
    assert obeyed.sum() == 1 and torch.equal(steps[-1].z[obeyed], z[obeyed]), "what obeys is not moved"
    assert digest(model) == before and model.training and all(p.grad is None for p in model.parameters())


def test_a_latent_goes_its_way_alone():
    """Each stops by itself, so a batch is its singles."""
    model, z = built(), torch.randn(3, 3, generator=torch.Generator().manual_seed(1))
    rule = Ink(float(ink(model.decode(z, {}).detach()).max()) + 0.05)
    whole = last(constrain(model, z, None, rule)).z
    alone = torch.cat([last(constrain(model, z[i : i + 1], None, rule)).z for i in range(3)])
    assert torch.allclose(whole, alone, atol=1e-5)


def test_the_distance_holds_latents_back():
    model, z = built(), torch.randn(8, 3, generator=torch.Generator().manual_seed(1))
    far, near = (last(constrain(model, z, None, Ink(1.0), steps=40, distance=d)).z for d in (0.0, 10.0))
    assert (near - z).square().mean() < 0.5 * (far - z).square().mean()


def flat(x):
    """A reward that leaves torch: no gradient, not even a tensor."""
    return np.asarray([float(v) for v in ink(torch.as_tensor(np.asarray(x)))]) >= 0.5


def test_a_reward_without_gradient_needs_a_critic_and_works_with_one():
    model, z = built(), torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    reward = Reward(flat)
    with pytest.raises(BadInput, match="has no gradient through VAE: train a `latent_critic`"):
        constrain(model, z, None, reward)
    critic = latent_critic(model, reward, n=400, steps=150)
    assert critic.accuracy > 0.9
    end = last(constrain(model, z, None, reward, critic=critic, lr=0.1))
    assert end.reached.all() and holds(reward, model.decode(end.z, {}).detach()).all()


def test_a_critic_needs_samples_of_both_kinds():
    with pytest.raises(BadInput, match="of 200 samples 0 obey Ink"):
        latent_critic(built(), Ink(1.0), n=200)


def test_realism_tells_encodings_from_the_prior():
    model = built()
    with torch.no_grad():
        model.E.layers[0].bias[:3] += 3  # encodings lie elsewhere
    x = 2 * torch.rand(300, 1, 4, 4, generator=torch.Generator().manual_seed(0)) - 1
    critic = realism_critic(model, x, steps=150)
    assert critic.accuracy > 0.95
    z = torch.zeros(3, 3)
    free, real = (last(constrain(model, z, None, Ink(0.0), realism=r, steps=100, lr=0.1)).z for r in (None, critic))
    assert torch.equal(free, z) and (torch.sigmoid(critic.logit(real)) >= 0.3).all()


def test_models_without_a_door_are_told_which_capability_is_missing():
    from condgen.models.gan import GAN

    gan = GAN((1, 8, 8), {}, z_dim=3, width=4).eval()
    with pytest.raises(BadInput, match="GAN has no `encode`"):
        realism_critic(gan, torch.zeros(4, 1, 8, 8))
    assert last(constrain(gan, torch.randn(2, 3), None, Ink(0.0))).reached.all(), "a generator can be constrained from the prior"
    with pytest.raises(BadInput, match="AE has no `sample`"):
        latent_critic(built(AE), Ink(0.5), n=50)


@pytest.mark.parametrize("options, says", [({"lr": 0.0}, "lr is 0.0"), ({"steps": -1}, "steps is -1"), ({"distance": -1.0}, "distance")])
def test_numbers_out_of_range_are_refused(options, says):
    with pytest.raises(BadInput, match=says):
        constrain(built(), torch.zeros(1, 3), None, Ink(0.5), **options)


# --- identity-preserving edits ------------------------------------------------------------------------------------------------


def halves(n=400):
    """Pictures whose left half is bright (one) or dark (zero), and an attribute that is the brightness of the right half."""
    g = torch.Generator().manual_seed(0)
    label, shade = torch.randint(2, (n,), generator=g), torch.rand(n, 1, generator=g)
    x = torch.empty(n, 1, 4, 4)
    x[..., :2] = (label * 1.6 - 0.8)[:, None, None, None]
    x[..., 2:] = (2 * shade - 1)[:, None, None]
    return x + 0.02 * torch.randn(x.shape, generator=g), label, shade


SHOWN = {"digit": Label(("zero", "one")), "look": Attributes(("shade",))}


@pytest.fixture(scope="module")
def principal():
    """A linear autoencoder that spans the two directions exactly, and its critic."""
    x, label, shade = halves()
    model = AE((1, 4, 4), {}, z_dim=2, hidden=()).eval()
    left, right = torch.zeros(1, 4, 4), torch.zeros(1, 4, 4)
    left[..., :2], right[..., 2:] = 1, 1
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        model.E.layers[0].weight.copy_(torch.stack([left.flatten() / 8, right.flatten() / 8]))
        model.G.layers[0].weight.copy_(torch.stack([left.flatten(), right.flatten()], 1))
    return model, attribute_critic(model, x, {"digit": label, "look": shade}, SHOWN, steps=400), x, label, shade


def test_edits_change_what_is_asked_and_leave_the_rest(principal):
    model, critic, x, label, _ = principal
    assert critic.accuracy > 0.9 and isinstance(critic.net, Namer)
    x, label = x[:40], label[:40]
    asked = {"digit": torch.ones(40, dtype=torch.long), "look": torch.full((40, 1), math.nan)}
    before = digest(model)
    found = edit(model, x, asked, critic)
    assert torch.equal(found.changed, label == 0) and found.reached.all()
    assert torch.equal(found.x[label == 1], x[label == 1]), "what shows it already comes back bit for bit"
    moved = found.x[label == 0]
    assert (moved[..., :2].mean((1, 2, 3)) > -0.2).all(), "the left half went from -0.8 to the other side"
    left, right = ((moved - x[label == 0])[..., half].mean((1, 2, 3)).abs().mean() for half in (slice(2), slice(2, 4)))
    assert right < left / 2, "the right half hardly moved"
    assert digest(model) == before


def test_attributes_are_asked_by_number(principal):
    model, critic, x, label, shade = principal
    low = (shade[:, 0] < 0.3).nonzero().flatten()[:10]
    asked = {"digit": label[low], "look": torch.ones(10, 1)}
    found = edit(model, x[low], asked, critic, realism_critic(model, x, steps=50), least=(0.5, 0.05))
    assert found.changed.all() and (found.x[..., 2:].mean((1, 2, 3)) > x[low][..., 2:].mean((1, 2, 3)) + 0.5).all()


def test_edits_need_what_they_need(principal):
    model, critic, x, label, _ = principal
    with pytest.raises(BadInput, match="'look' is not asked; the critic names digit, look"):
        edit(model, x[:2], {"digit": label[:2]}, critic)
    with pytest.raises(BadInput, match="'obeys' is not asked"):
        edit(model, x[:2], {"digit": label[:2]}, realism_critic(model, x, steps=1))
    with pytest.raises(BadInput, match="names labels and attributes, not caption"):
        attribute_critic(model, x, {}, {"caption": Text(4)})
