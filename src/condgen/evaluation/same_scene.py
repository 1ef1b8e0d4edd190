"""Translation of scenes whose picture in the other domain is known: is the translated picture of the same scene?

Where the test rows hold the same scene in the other domain (`counterpart`), the translated picture is compared with that; where they hold
the object's mask, its shape is. Over all pixels the ground weighs more than the object, so every gain is said of the inside of the object
too, by direction, and the best map of colours alone stands beside them. Differences are those of pixels in [0, 1].
"""

import torch
from torch import Tensor

from condgen.errors import BadInput
from condgen.evaluation.measuring import Family, Measured, Measuring
from condgen.evaluation.segmenter import Segmenter, learning_half, overlaps, sized, train_segmenter
from condgen.evaluation.translation import UNTRAINED, Ways, apart, directions, ways
from condgen.model import domain_of

STILL = 1 / 255
"""Pixels that differ by no more, in [0, 1], are those that translation should leave alone."""
PLAIN = "|mean absolute difference in [0,1]|v1|ceiling=the counterpart itself|"


def paired_gain(m: Measuring) -> Family:
    """How much nearer to the scene's true picture in the other domain translation comes: 1 - L1(y, true) / L1(x, true).

    Its parts: by direction; `inside` and `outside` of the object, each by direction as well; `recoloured`, what the best map of colours
    comes to; `l1`, the distance itself, beside that of the untranslated picture; and of the pixels that are alike in both domains `tint`,
    how far their mean colour moves, and `still`, how far each of them does.

    Raises:
        BadInput: for data whose test rows hold no `counterpart`.
    """
    true = _of_test(m, "counterpart", "the same scene in the other domain")
    found, fresh = ways(m, m.model), ways(m, m.untrained)
    gains, controls = _gains(m, found, true), _gains(m, fresh, true)
    family = {k: Measured.of((v, 1.0, controls[k][0]), n, f"{k}{PLAIN}{UNTRAINED}") for k, (v, n) in gains.items() if k in controls}
    after, before = (float(apart(some, true[found.rows]).mean()) for some in (found.y, found.x))
    family["paired_gain/l1"] = Measured(after, 0.0, before, len(found.rows), f"paired_gain/l1{PLAIN}control=untranslated")
    return family | _moved(m, found, fresh, true) | _recoloured(m, found, true)


def _of_test(m: Measuring, name: str, what: str) -> Tensor:
    """A picture that stands beside each test picture. Raises BadInput where the data have none."""
    if name not in m.real.c:
        raise BadInput(f"the test rows have no `{name}` ({what}), to measure against; drawn data such as scenes-domains have it")
    return m.real.c[name]


def _gains(m: Measuring, found: Ways, true: Tensor) -> dict[str, tuple[float, int]]:
    """Name of a part -> the gain, and of how many pictures; where there is anything to gain."""
    return {f"paired_gain{part}": gain for part, gain in gains(found, true[found.rows], _regions(m, found)).items()}


def gains(found: Ways, true: Tensor, regions: dict[str, Tensor]) -> dict[str, tuple[float, int]]:
    """1 - L1(y, true) / L1(x, true) over the pixels of each region, and of how many pictures; where there is anything to gain."""
    after, before = (apart(some, true) for some in (found.y, found.x))
    room = {part: (at, float((before * at).sum())) for part, at in regions.items()}
    return {
        part: (1 - float((after * at).sum()) / total, int(at.flatten(1).any(1).sum())) for part, (at, total) in room.items() if total > 0
    }


def _regions(m: Measuring, found: Ways) -> dict[str, Tensor]:
    """Name of a part -> which pixels count, bool, of a shape that fits (n, h, w)."""
    parts = {part: at[:, None, None] for part, at in directions(m, found.to).items()}
    if "mask" not in m.real.c:
        return parts
    inside = m.real.c["mask"][found.rows, 0] > 0
    sides = {"/inside": inside, "/outside": ~inside}
    return parts | {f"{side}{part}": at & pixels for side, pixels in sides.items() for part, at in parts.items()}


# --- what should not change -----------------------------------------------------------------------------------------------


def _moved(m: Measuring, found: Ways, fresh: Ways, true: Tensor) -> Family:
    """The parts `tint` and `still`; none where no pixel is alike in both domains."""
    at, beside = _still(m, found, true), _still(m, fresh, true)
    if not bool(at.any()) or not bool(beside.any()):
        return {}
    kinds = {"tint": (tint, "mean colour"), "still": (moved, "mean absolute difference")}
    return {
        f"paired_gain/{part}": Measured(
            of(found.y, found.x, at),
            0.0,
            of(fresh.y, fresh.x, beside),
            len(found.rows),
            f"paired_gain/{part}|{what} of what is alike in both domains, in [0,1]|v1|ceiling=unchanged|{UNTRAINED}",
        )
        for part, (of, what) in kinds.items()
    }


def _still(m: Measuring, found: Ways, true: Tensor) -> Tensor:
    """Pixels outside of the object that are the same in both domains, bool (n, h, w)."""
    same = (found.x - true[found.rows]).abs().amax(1) / 2 <= STILL
    return same & (m.real.c["mask"][found.rows, 0] <= 0) if "mask" in m.real.c else same


def tint(y: Tensor, x: Tensor, still: Tensor) -> float:
    """How far the mean colour of the still pixels (n, h, w), of which there are some, moves from x to y: absolute, in [0, 1]."""
    at = still[:, None].double()
    total = at.sum((2, 3))
    means = ((y - x).double() * at).sum((2, 3)) / total.clamp(min=1) / 2  # (n, c)
    return float(means.abs()[total[:, 0] > 0].mean())


def moved(y: Tensor, x: Tensor, still: Tensor) -> float:
    """How far the still pixels (n, h, w), of which there are some, move from x to y: absolute, in [0, 1]."""
    return float(apart(y, x)[still].mean())


# --- by colours alone -----------------------------------------------------------------------------------------------------


def _recoloured(m: Measuring, found: Ways, true: Tensor) -> Family:
    """The parts `recoloured`: the gain of the best affine map of colours in each direction, fitted to one half of the pairs, on the other.

    No model: what can be had without knowing any shape. Untranslated pictures gain 0.
    """
    fits = _halves(m)[found.rows]
    if not bool(fits.any()) or bool(fits.all()):
        return {}
    y = found.x.clone()
    for at in directions(m, found.to).values():
        if bool((at & fits).any()):  # the whole comes first, and each direction then overwrites its own
            y[at] = recoloured(found.x[at & fits], true[found.rows[at & fits]], found.x[at])
    held = ~fits
    other = Ways(*(some[held] for some in (found.rows, found.source, found.to, found.x, y)))
    about = "|affine map of colours, least squares on half of the pairs|mean absolute difference in [0,1]|v1"
    about += "|ceiling=the counterpart itself|control=untranslated"
    parts = gains(other, true[other.rows], _regions(m, other))
    chosen = {part: gain for part, gain in parts.items() if not part.startswith("/outside")}
    return {
        f"paired_gain/recoloured{part}": Measured(value, 1.0, 0.0, n, f"paired_gain/recoloured{part}{about}")
        for part, (value, n) in chosen.items()
    }


def _halves(m: Measuring) -> Tensor:
    """One half of the test pictures, bool (n,), with no scene on both sides; without masks, of each domain every other one."""
    domain = m.real.c[domain_of(m.model)[0]]
    if "mask" in m.real.c:
        return learning_half(m.real.c["mask"][:, 0] > 0, domain)
    each = domain[:, None] == domain.unique()
    return ((each.cumsum(0) % 2 == 1) & each).any(1)


def recoloured(x: Tensor, true: Tensor, other: Tensor) -> Tensor:
    """Pictures `other` under the affine map of colours that brings x nearest to `true` in squares, cut to [-1, 1]; (n, c, h, w) each."""
    fitted = torch.linalg.lstsq(_colours(x), _colours(true)[:, :-1]).solution
    n, c, h, w = other.shape
    return (_colours(other) @ fitted).clamp(-1, 1).float().reshape(n, h, w, c).permute(0, 3, 1, 2)


def _colours(x: Tensor) -> Tensor:
    """(n, c, h, w) as float64 (n h w, c + 1), the last column 1."""
    flat = x.permute(0, 2, 3, 1).flatten(0, 2).double()
    return torch.cat([flat, torch.ones_like(flat[:, :1])], 1)


# --- the shape ------------------------------------------------------------------------------------------------------------


def mask_iou(m: Measuring) -> Family:
    """Overlap of the object's true mask and the one that a segmenter sees in the translated picture; by direction as well.

    The segmenter learns from real pictures of half of the test scenes, in both domains, and the model is measured on the other half.
    Beside it the segmenter on the true counterparts: on untranslated pictures, where there are none.

    Raises:
        BadInput: for data whose test rows hold no `mask`.
    """
    truth = sized(_of_test(m, "mask", "of the object"))[:, 0] > 0
    learns = learning_half(truth, m.real.c[domain_of(m.model)[0]])
    if bool(learns.all()):
        raise BadInput("all test pictures have one mask; a segmenter cannot learn from some scenes and be tried on others")
    segmenter, found, paired = _segmenter(m, learns), ways(m, m.model), "counterpart" in m.real.c
    held = ~learns[found.rows]
    rows, to = found.rows[held], found.to[held]
    shown, real = segmenter(found.y[held]), segmenter(m.real.c["counterpart"][rows] if paired else found.x[held])
    three = [overlaps(a, b) for a, b in ((shown, truth[rows]), (real, truth[rows]), (shown, truth[rows].roll(1, 0)))]
    above = f"the segmenter on the {'true counterparts' if paired else 'untranslated pictures'}"
    about = f"|{segmenter.id}|v1|ceiling={above}|control=mask of another picture"
    return {f"mask_iou{part}": _mean([some[at] for some in three], f"mask_iou{part}{about}") for part, at in directions(m, to).items()}


def _mean(three: list[Tensor], about: str) -> Measured:
    """Means of a scene's value, ceiling and control, with the standard error of the first over scenes."""
    n = len(three[0])
    value, ceiling, control = (float(some.double().mean()) for some in three)
    return Measured(value, ceiling, control, n, about, float(three[0].double().std()) / n**0.5 if n > 1 else None)


def _segmenter(m: Measuring, learns: Tensor) -> Segmenter:
    """Trained on those test pictures and, where the data have them, their counterparts."""
    kinds = [m.real.x, *([m.real.c["counterpart"]] if "counterpart" in m.real.c else [])]
    return train_segmenter(torch.cat([x[learns] for x in kinds]), m.real.c["mask"][learns].repeat(len(kinds), 1, 1, 1))
