"""Adversarial games, as pairs of losses on logits.

A game is what D descends and what G descends; both take D's logits on real and on fake samples, (b,), and return one
value per sample, (b,). A *paired* game compares each real sample with a fake one, also in G's loss.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Logits = Float[Tensor, " b"]


@dataclass(frozen=True)
class Game:
    """`d(real, fake)` is D's loss; `g(fake, real)` is G's, which reads `real` only where the game is `paired`."""

    d: Callable[[Logits, Logits], Logits]
    g: Callable[[Logits, Logits | None], Logits]
    paired: bool = False


def cross_entropy_d(real: Logits, fake: Logits) -> Logits:
    """-log D(x) - log(1 - D(G(z))), D = sigmoid(logit). Goodfellow et al. 2014, arXiv 1406.2661, equation (1)."""
    return F.softplus(-real) + F.softplus(fake)


def minimax_g(fake: Logits, real: Logits | None = None) -> Logits:
    """log(1 - D(G(z))): equation (1) to the letter; its gradient vanishes where D is sure."""
    return -F.softplus(fake)


def non_saturating_g(fake: Logits, real: Logits | None = None) -> Logits:
    """-log D(G(z)): the same fixed point, a stronger gradient early. Goodfellow et al. 2014, section 3."""
    return F.softplus(-fake)


def least_squares_d(real: Logits, fake: Logits) -> Logits:
    """((D(x) - 1)^2 + D(G(z))^2) / 2. Mao et al. 2016, arXiv 1611.04076, equation (9) with a=0, b=c=1."""
    return ((real - 1) ** 2 + fake**2) / 2


def least_squares_g(fake: Logits, real: Logits | None = None) -> Logits:
    return (fake - 1) ** 2 / 2


def hinge_d(real: Logits, fake: Logits) -> Logits:
    """max(0, 1 - D(x)) + max(0, 1 + D(G(z))). Lim & Ye 2017, arXiv 1705.02894."""
    return F.relu(1 - real) + F.relu(1 + fake)


def wasserstein_d(real: Logits, fake: Logits) -> Logits:
    """D(G(z)) - D(x), for a critic kept 1-Lipschitz by a penalty. Arjovsky et al. 2017, arXiv 1701.07875."""
    return fake - real


def wasserstein_g(fake: Logits, real: Logits | None = None) -> Logits:
    return -fake


def relativistic_d(real: Logits, fake: Logits) -> Logits:
    """-log sigmoid(D(x) - D(G(z))). Jolicoeur-Martineau 2018, arXiv 1807.00734; with R1 and R2 it is R3GAN, arXiv 2501.05441."""
    return F.softplus(fake - real)


def relativistic_g(fake: Logits, real: Logits | None = None) -> Logits:
    if real is None:
        raise TypeError("the relativistic game pairs each fake with a real sample: pass D's logits on the real batch")
    return F.softplus(real - fake)


def task_specific(pi: float, g: str = "minimax") -> Game:
    """The weighted game: -pi log D(x) - (1 - pi) log(1 - D(G(z))). Creswell & Bharath 2016, equation (1).

    G descends its own term of the same value ("minimax": then the game minimises JS_pi), or -log D(G(z)) without weight ("non_saturating").
    """

    def d(real: Logits, fake: Logits) -> Logits:
        return pi * F.softplus(-real) + (1 - pi) * F.softplus(fake)

    def weighted_g(fake: Logits, real: Logits | None = None) -> Logits:
        return (1 - pi) * minimax_g(fake)

    return Game(d, weighted_g if g == "minimax" else non_saturating_g)


def swapped(game: Game, encoded: Logits, generated: Logits) -> Logits:
    """What encoder and generator descend together in a game of pairs (x, z): D's loss with the labels of both kinds swapped.

    D says real of the encoder's pairs (x, E(x)) and fake of the generator's (G(z), z). ALI, arXiv 1606.00704, V'; BiGAN, arXiv 1605.09782,
    section 3.4, the inverse objective. The minimax game to the letter is minus D's loss.
    """
    return -game.d(encoded, generated) if game.g is minimax_g else game.d(generated, encoded)


GAMES: dict[str, Game] = {
    "minimax": Game(cross_entropy_d, minimax_g),
    "non_saturating": Game(cross_entropy_d, non_saturating_g),
    "least_squares": Game(least_squares_d, least_squares_g),
    "hinge": Game(hinge_d, wasserstein_g),
    "wasserstein": Game(wasserstein_d, wasserstein_g),
    "relativistic": Game(relativistic_d, relativistic_g, paired=True),
}
