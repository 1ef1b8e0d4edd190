"""Does the detail of a sample carry its class? The judge looks again after the detail was taken away.

Odena et al. 2016, arXiv 1610.09585, section 4.1: samples are made smaller and larger again, bilinearly, and the share that is
seen as the class asked for must fall with every halving; a model that only enlarged small pictures would lose nothing.
"""

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from condgen.errors import BadInput
from condgen.evaluation.consistency import consistency
from condgen.evaluation.measuring import Family, Measured, Measuring
from condgen.evaluation.ssim import sides


def coarsened(x: Tensor, halvings: int) -> Tensor:
    """Pictures (n, c, h, w) made 2^halvings times smaller and as large again: bilinear, without aliasing."""
    size = (x.shape[2], x.shape[3])
    small = F.interpolate(x, size=(size[0] >> halvings, size[1] >> halvings), mode="bilinear", antialias=True)
    return F.interpolate(small, size=size, mode="bilinear") if halvings else x


def discriminability(m: Measuring) -> Family:
    """What is lost between full and smallest size, and the consistency at each size: `discriminability/14` at 14 px."""
    found = sides(*m.model.shape[1:])
    if len(found) < 2:
        raise BadInput(f"pictures of {m.model.shape[1]} x {m.model.shape[2]} px cannot be halved and still be seen")
    sizes = {side: _three(m, halvings) for halvings, side in enumerate(found)}
    full, smallest = sizes[found[0]], sizes[found[-1]]
    about = _about(m, "discriminability", f"{found[0]} px against {found[-1]} px")
    family = {"discriminability": Measured.of((a - b for a, b in zip(full, smallest, strict=True)), m.n, about)}
    for side, three in sizes.items():
        family[f"discriminability/{side}"] = Measured.of(three, m.n, _about(m, "discriminability", f"{side} px"))
    return family


def _three(m: Measuring, halvings: int) -> list[float]:
    """Of samples, of real test pictures, and of samples with labels shuffled, as `Measuring.three_consistencies` at full size."""
    seen, real = (m.judge.predict(coarsened(x, halvings), m.label) for x in (m.balanced, m.real.x))
    order = torch.randperm(m.n, generator=Generator().manual_seed(m.seed))
    asked = m.groups_asked
    return [c.mean for c in (consistency(seen, asked), consistency(real, m.real.c[m.label]), consistency(seen, asked[order]))]


def _about(m: Measuring, name: str, size: str) -> str:
    return f"{m.on_judge(name)}|{size}|bilinear, antialiased|label={m.label}|classes evenly|ceiling=test rows|control=labels shuffled"
