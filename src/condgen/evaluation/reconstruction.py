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


EXACT = 2048
"""Numbers in a sample up to which the principal components are exact; beyond, they are those of a randomised range finder on some rows."""


@torch.no_grad()
def pca_error(train: Any, x: Tensor, dimensions: int) -> float:
    """The same error of x projected on the first principal components of the training rows."""
    flat = x.flatten(1).double()
    mean, components = _components(train, dimensions) if flat.shape[1] <= EXACT else _rough_components(train, dimensions)
    centred = flat - mean
    return float((centred - centred @ components @ components.T).square().mean() / 4)


def _components(train: Any, dimensions: int, chunk: int = 5000) -> tuple[Tensor, Tensor]:
    """Mean (d,) and components (d, dimensions), from the covariance of all rows."""
    total, products = 0.0, 0.0
    for start in range(0, len(train), chunk):
        rows = train.batch(torch.arange(start, min(start + chunk, len(train)))).x.flatten(1).double()
        total, products = total + rows.sum(0), products + rows.T @ rows
    mean = torch.as_tensor(total / len(train))
    _, vectors = torch.linalg.eigh(products / len(train) - torch.outer(mean, mean))
    return mean, vectors.flip(1)[:, :dimensions]  # eigh sorts upwards


def _rough_components(train: Any, dimensions: int, most: int = 20_000_000) -> tuple[Tensor, Tensor]:
    """The same of at most `most` values."""
    rows = min(len(train), max(2, most // train.batch(torch.arange(1)).x.numel()))
    seen = train.batch(torch.arange(rows) * len(train) // rows).x.flatten(1)
    mean = seen.mean(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _, _, components = torch.pca_lowrank(seen - mean, q=min(dimensions, *seen.shape), center=False, niter=4)
    return mean.double(), components.double()
