"""Log-likelihood of faces as Gauthier measured it: a Parzen window in the space of contrast-normalised pictures.

    gcn(x) = 55 (x - mean x) / |x - mean x|             of each picture, over all its pixels and channels

Gauthier 2015, table 2 and the code that came with it (`parzen_ll.py`): 10,000 samples, the width from ten steps of 0.1 to 1 by
the validation pictures, the mean over the test pictures with its standard error. Given here as the *negative* log-likelihood:
the table's numbers can be nothing else, because real training pictures reach 2839 and a mean picture 3398.

The measure rewards blur. A Gaussian of 20 principal components, which draws no face, reaches 2612: it is the control.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from condgen.errors import BadInput, require_whole
from condgen.evaluation.likelihood import parzen
from condgen.evaluation.measuring import Measured, Measuring, some_rows
from condgen.networks.layers import contrast_normalised

NORM = 55.0
COMPONENTS = 20
"""Principal components of the control."""


def gcn(x: Any, norm: float = NORM) -> Tensor:
    """Pictures (n, c, h, w) on any scale as rows (n, d), float64, each of mean 0 and of length `norm`; an even picture becomes 0."""
    return contrast_normalised(torch.as_tensor(x).detach().cpu().double(), norm).flatten(1)


def gaussian_of(rows: Tensor, components: int, n: int, seed: int = 0) -> Tensor:
    """n draws (n, d) of a Gaussian that has the mean of these rows (m, d) and the variance of their first principal components.

    Raises BadInput for more components than rows or dimensions allow.
    """
    require_whole("components", components, 1, min(len(rows) - 1, rows.shape[1]))
    mean = rows.mean(0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        wide = min(components + 20, *rows.shape)  # a range finder wants a margin
        _, sizes, axes = torch.pca_lowrank((rows - mean).float(), q=wide, center=False, niter=6)
    z = torch.from_numpy(np.random.default_rng(seed).standard_normal((n, components)))
    return mean + (z * (sizes[:components].double() / (len(rows) - 1) ** 0.5)) @ axes[:, :components].double().T


def parzen_gcn(m: Measuring) -> Measured:
    """Gauthier's protocol: samples under conditions of the window around training rows.

    Where the data have no validation split, the last sixth of the training rows takes its place.
    """
    valid, kept, by = m.width_parts()
    test, train = m.test.batch(torch.arange(len(m.test))).x, gcn(kept)
    if min(len(train), *train.shape) <= COMPONENTS:
        raise BadInput(f"{len(train)} training pictures of {train.shape[1]} numbers: the control wants more than {COMPONENTS} of each")
    drawn = gaussian_of(train, COMPONENTS, m.n, m.seed)
    sets = (gcn(m.recalled), train[some_rows(len(train), m.n)], drawn)
    value, ceiling, control = (parzen(x, gcn(valid), gcn(test), refine=0) for x in sets)
    sigmas = f"sigma={value.sigma:.3f}, ceiling {ceiling.sigma:.3f}, control {control.sigma:.3f}"
    about = f"parzen_gcn|negative, contrast-normalised to {NORM:g}|n={m.n}/{len(test)}|grid of widths|{sigmas}|{by}|f64|v1"
    about += f"{m.under}|ceiling=training rows|control=Gaussian of {COMPONENTS} components"
    return Measured(-value.mean, -ceiling.mean, -control.mean, m.n, about, value.standard_error)
