"""Whether an encoder and a style-based generator undo each other: `latent_cycle`, `reconstruction_frechet`, `class_entropy`.

    latent_cycle = E|F(z) - E(G(F(z)))|^2 / Var(F(z)),    Var: summed over dimensions
    reconstruction_frechet: Fréchet distance of reconstructions of test rows to training rows, in the judge's features
    class_entropy: entropy of the classes that the judge sees in samples, in nats; log k where all k are as frequent

Pidhorskyi, Adjeroh & Doretto 2020, arXiv 2004.04467: ALAE asks for reciprocity in the space of w alone, never for faithful pictures. A
w that shrinks to a point makes the numerator small, so it is measured over the variance, and the variance stands beside it.

Reconstructions are compared with *training* rows: with the test rows that they are of they would share their chance, and be nearer to
them than another draw of the truth is. The part `/ratio` is over the distance of as many samples of the model to the same rows.
"""

import torch
from torch import Tensor

from condgen.editing.space import Space, require
from condgen.errors import BadInput
from condgen.evaluation.frechet import frechet
from condgen.evaluation.measuring import Family, Measured, Measuring
from condgen.evaluation.probes import given, label_of
from condgen.evaluation.synthesis import AtRest, conditions_of
from condgen.model import Model

FROM_MODEL = "control=untrained model"


def latent_cycle(m: Measuring) -> Family:
    """The ratio of the module's head; part `/variance`: of w, the mean over dimensions."""
    require(m.model, "encode", "synthesis")
    value, control = (cycle_of(*_there_and_back(m, model)) for model in (m.model, m.untrained))
    about = f"latent_cycle|n={m.n}|w of z, no truncation, fixed noise|f64|v1{given(m.model)}"
    return {
        "latent_cycle": Measured(value[0], 0.0, control[0], m.n, f"{about}|ceiling=w itself|{FROM_MODEL}"),
        "latent_cycle/variance": Measured(value[1], None, control[1], m.n, f"{about}|ceiling=none|{FROM_MODEL}"),
    }


def _there_and_back(m: Measuring, model: Model) -> tuple[Tensor, Tensor]:
    at, c = AtRest(model), conditions_of(m, m.n)
    w = at.mapping(at.latents(m.n, m.seed)[0], c)
    return w, at.space.encode(at.draw(w), c)


def cycle_of(w: Tensor, back: Tensor) -> tuple[float, float]:
    """E|w - back|^2 / Var(w) of (n, d) each, and Var(w) / d. Raises BadInput where all w are one: nothing can be told of it."""
    w, back = w.flatten(1).double(), back.flatten(1).double()
    spread, error = w.var(0, correction=0), (w - back).square().sum(1).mean()
    if not float(spread.sum()) > 0:
        raise BadInput(f"all of {len(w)} draws of w are one point, so no error can be told in its variance: the mapping has collapsed")
    return float(error / spread.sum()), float(spread.mean())


def reconstruction_frechet(m: Measuring) -> Family:
    """The distance of the module's head, and its part `/ratio`."""
    require(m.model, "encode", "decode")
    n = min(m.n, len(m.real.x))
    real = m.judge.features(m.stand_in.x)

    def distance(x: Tensor) -> float:
        return frechet(real, m.judge.features(x[:n]))

    def back(model: Model) -> Tensor:
        return Space(model).reconstruct(m.real.x[:n], {k: v[:n] for k, v in m.real_conditions.items()})

    value, ceiling, control, drawn = (distance(x) for x in (back(m.model), m.real.x, back(m.untrained), m.natural))
    about = f"|{m.judge.id}|n={n} test/{len(real)} training rows|f64|v1{given(m.model)}|ceiling=the test rows themselves|{FROM_MODEL}"
    ratios = (v / drawn for v in (value, ceiling, control))
    return {
        "reconstruction_frechet": Measured(value, ceiling, control, n, f"reconstruction_frechet{about}"),
        "reconstruction_frechet/ratio": Measured.of(ratios, n, f"reconstruction_frechet, over that of the model's samples{about}"),
    }


def class_entropy(m: Measuring) -> Measured:
    """The entropy of the module's head; the label is the data's first, whether or not the model reads it."""
    name = label_of(m, "class_entropy")
    sets = (m.natural, m.stand_in.x, m.drawn(m.untrained, m.naturally))
    about = f"class_entropy|{m.judge.id}|label={name}|nats|n={m.n}|v1{given(m.model)}|ceiling=training rows|{FROM_MODEL}"
    return Measured.of((entropy_of(m.judge.predict(x, name)) for x in sets), m.n, about)


def entropy_of(classes: Tensor) -> float:
    """Of the shares of classes (n,), in nats.

    >>> round(entropy_of(torch.tensor([0, 0, 3, 3])), 4)
    0.6931
    """
    shares = classes.bincount().double() / len(classes)
    return float(torch.special.entr(shares).sum())
