"""What latents are weighed and moved by: distances on the encoder's own scale, and a descent that stops sample by sample."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

Objective = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(latents (m, ...) that ask for a gradient, their rows in the batch (m,)) -> (loss (m,), whether all that is asked holds, bool (m,))."""


def log_distance(moved: Float[Tensor, "b d"], z: Float[Tensor, "b d"], sigma: Float[Tensor, " d"]) -> Float[Tensor, " b"]:
    """mean_d log(1 + (z'_d - z_d)^2) / sigma_d^2. Engel et al. 2017, arXiv 1711.05772, the released code."""
    return ((1 + (moved - z).square()).log() / sigma.square()).mean(1)


def scaled_distance(moved: Float[Tensor, "b d"], z: Float[Tensor, "b d"], sigma: Float[Tensor, " d"]) -> Float[Tensor, " b"]:
    """mean_d (z'_d - z_d)^2 / sigma_d^2: how far a latent was moved, in squared standard deviations of the encoder."""
    return ((moved - z).square() / sigma.square()).mean(1)


@dataclass(frozen=True)
class Descent:
    """One step of a descent.

    Args:
        step: 0 before the first move.
        z: of each sample the first iterate at which all held, or the present one, (b, ...).
        reached: where all held, bool (b,).
        loss: of the iterate in z, (b,).
    """

    step: int
    z: Tensor
    reached: Tensor
    loss: Tensor


def descend(z: Tensor, objective: Objective, steps: int, lr: float, beta1: float = 0.9, beta2: float = 0.999) -> Iterator[Descent]:
    """Adam on each latent by itself, until all that is asked of it holds; who has arrived stays at the first such iterate.

    Adam's second moment is one number for each latent, the mean over its numbers: the way keeps the gradient's direction. With one for
    each number all of them move equally fast, also those that hardly matter to what is asked, and the sample loses its identity.

    Args:
        z: where to start, (b, ...).
        objective: loss and success of some of the latents. Samples must not mix in it.
        steps: the most moves.
        lr: Adam's rate: about how far a latent moves in a step, as the root of the mean square over its numbers.
        beta1, beta2: Adam's.

    Yields:
        a `Descent` before the first move and after each; the last one where all have arrived.
    """
    z = z.detach()
    kept, reached, losses = z.clone(), torch.zeros(len(z), dtype=torch.bool, device=z.device), torch.zeros(len(z), device=z.device)
    rows, mean, square = torch.arange(len(z), device=z.device), torch.zeros_like(z), per_latent(torch.zeros_like(z))
    for step in range(steps + 1):
        with torch.enable_grad():
            here = kept[rows].requires_grad_()
            loss, done = objective(here, rows)
            gradient = torch.autograd.grad(loss.sum(), here)[0] if step < steps else torch.zeros_like(here)
        losses[rows], reached[rows] = loss.detach().float(), done
        yield Descent(step, kept.clone(), reached.clone(), losses.clone())
        # Who has arrived leaves the batch, with its moments: the others do not notice.
        rows, gradient, mean, square = (v[~done] for v in (rows, gradient, mean, square))
        if not len(rows) or step == steps:
            return
        mean, square = beta1 * mean + (1 - beta1) * gradient, beta2 * square + (1 - beta2) * per_latent(gradient)
        t = step + 1
        kept[rows] -= lr * (mean / (1 - beta1**t)) / ((square / (1 - beta2**t)).sqrt() + 1e-8)


def per_latent(gradient: Tensor) -> Tensor:
    """The mean square of each latent's numbers, (b, 1, ...)."""
    return gradient.square().flatten(1).mean(1).view(-1, *(1,) * (gradient.dim() - 1))
