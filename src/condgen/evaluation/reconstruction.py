"""How well a latent code keeps a picture, beside the linear optimum: the projection on principal components."""

from typing import Any

import torch
from torch import Tensor

from condgen.conditions import Values


@torch.no_grad()
def latent_of(model: Any, x: Tensor, c: Values) -> Tensor:
    """The latents (b, ...) of x (b, *shape); c may have more rows."""
    return model.encode(x.to(model.device), {name: v[: len(x)].to(model.device) for name, v in c.items()})


@torch.no_grad()
def reconstruction_errors(model: Any, x: Tensor, c: Values, chunk: int = 500) -> Tensor:
    """Mean squared difference of x (b, *shape) in [-1, 1] and decode(encode(x)), both scaled to [0, 1]: float64 (b,)."""
    was, parts = model.training, []
    model.eval()
    for i in range(0, len(x), chunk):
        some, values = x[i : i + chunk].to(model.device), {name: v[i : i + chunk].to(model.device) for name, v in c.items()}
        back = model.decode(model.encode(some, values), values)
        parts.append((back.double() - some.double()).square().flatten(1).mean(1).cpu() / 4)
    model.train(was)
    return torch.cat(parts)


def pca_error(train: Any, x: Tensor, dimensions: int, most: int = 20_000_000) -> float:
    """The same error of x projected on the principal components of training rows, of at most `most` values in all."""
    flat = x.flatten(1)
    rows = min(len(train), max(2, most // flat.shape[1]))
    seen = train.batch(torch.arange(rows) * len(train) // rows).x.flatten(1)
    mean = seen.mean(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _, _, components = torch.pca_lowrank(seen - mean, q=min(dimensions, *seen.shape), center=False, niter=4)
    kept = (flat - mean) @ components
    return float((kept @ components.T - (flat - mean)).double().square().mean() / 4)
