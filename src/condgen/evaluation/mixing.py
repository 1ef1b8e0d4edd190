"""What pictures lose where their layers come from several latents: the metric `mixing_damage`.

    frechet(samples of two latents) - frechet(samples of one),   layers before a random crossover from the first, from there on the second

Karras, Laine & Aila 2019, arXiv 1812.04948, table 2: mixing regularisation is there so that it stays small. A sample has its own
crossover, uniform in [1, layers); k latents have k - 1 different ones, and their parts are `/two`, `/three` and `/four` beside `/one`.
All latents of a sample have its conditions.

Distances fall as 1/n, so all are of the same n. The control is what looks like a mixture and is none: the mean of the two pictures.
"""

import torch
from torch import Generator, Tensor

from condgen.errors import BadInput
from condgen.evaluation.frechet import frechet
from condgen.evaluation.measuring import Family, Measured, Measuring
from condgen.evaluation.probes import given
from condgen.evaluation.synthesis import AtRest, conditions_of
from condgen.styled import swapped

MOST = 5000
"""Samples of each kind."""
PARTS = ("one", "two", "three", "four")
"""Names of the parts, by the number of latents."""


def mixing_damage(m: Measuring) -> Family:
    """The difference of the module's head, and the distances by the number of latents, as far as there are layers for them."""
    at, n = AtRest(m.model), min(m.n, MOST)
    layers = len(at.model.layer_sides)
    if layers < 2:
        raise BadInput(f"{type(m.model).__name__} has {layers} layer that reads w; mixing needs at least 2")
    c, most = conditions_of(m, n), min(len(PARTS), layers)
    w = torch.stack([at.mapping(z, c) for z in at.latents(n, m.seed, most)])
    found = {PARTS[k - 1]: _distance(m, at.samples(spliced(w[:k], crossovers(n, layers, k, m.seed), layers))) for k in range(1, most + 1)}
    blended = _distance(m, (at.samples(w[0]) + at.samples(w[1])) / 2)
    real = _distance(m, m.stand_in.x[:n])
    about = f"mixing_damage|{m.judge.id}|n={n}/{len(m.real_features)}|crossovers of each sample|fixed noise, no truncation|f64|v1"
    about += f"{given(m.model)}|ceiling={{}}|control=mean of two pictures"
    ends = about.format("0, nothing lost"), about.format("training rows")
    damage = Measured(found["two"] - found["one"], 0.0, blended - found["one"], n, ends[0])
    return {"mixing_damage": damage} | {f"mixing_damage/{part}": Measured(v, real, blended, n, ends[1]) for part, v in found.items()}


def _distance(m: Measuring, x: Tensor) -> float:
    return frechet(m.real_features, m.judge.features(x))


def crossovers(n: int, layers: int, latents: int, seed: int) -> Tensor:
    """Where one latent gives way to the next: int64 (n, latents - 1), different, rising, uniform in [1, layers)."""
    order = torch.rand(n, layers - 1, generator=Generator().manual_seed(seed)).argsort(1)
    return 1 + order[:, : latents - 1].sort(1).values


def spliced(w: Tensor, cuts: Tensor, layers: int) -> Tensor:
    """A w for each layer, (n, layers, w_dim): of the first latent up to the first cut, of the second from there up to the next.

    Args:
        w: (latents, n, w_dim).
        cuts: (n, latents - 1), rising.
        layers: how many.
    """
    found = w[0][:, None].expand(-1, layers, -1)
    for one, cut in zip(w[1:], cuts.T, strict=True):
        found = swapped(found, one[:, None], torch.arange(layers) >= cut[:, None])
    return found
