"""Which part of a photograph takes its style from which part of another: soft memberships of classes that both pictures have.

Classes come from a picture of flat colours (the nine of the released code, or any others), from a folder of one gray picture a class,
or from clustering both pictures' pixels together. A class of the content that some style lacks has nothing to be descended to: it is
merged into the class of the content that is most like it, by the rule of `matched`, and a note says so.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from condgen.data.images import READ, read_rgb
from condgen.editing.transfer import Masks
from condgen.errors import BadInput, require_whole

Colour = tuple[int, int, int]
NINE: dict[str, Colour] = {
    "blue": (0, 0, 255),
    "green": (0, 255, 0),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "red": (255, 0, 0),
    "yellow": (255, 255, 0),
    "grey": (128, 128, 128),
    "light blue": (0, 255, 255),
    "purple": (255, 0, 255),
}
"""The codes of Luan et al.'s segmentations, red, green and blue from 0 to 255."""
FIRM = 64.0
"""So near to a flat colour, a pixel is of it; farther off it is a blend, of an edge or of lossy compression."""
FLAT = 24.0
"""So near to a flat colour are most of its pixels, even after lossy compression; those of a photograph are not."""
MOSTLY = 0.85
"""Where so many pixels are near to a palette's colours, it fits."""
TINY = 0.01
"""A class of a smaller part of a picture counts as absent: at the deepest layers it would be less than a place."""
MOST_CLASSES = 32
CLUSTERED_SIDE = 96
"""Pictures are clustered at this size of their longer side, in px."""
PLACE_WEIGHT = (0.5, 3.0)
"""What a picture's width and height count in clustering, in standard deviations of its colours: skies lie above."""
BLUR = 5
"""Over so many px of the shrunk picture colours are averaged first, so that clusters are areas and not grain."""

Segments = dict[str, Tensor]
"""Class -> membership (h, w) in [0, 1]; the classes of one picture add up to 1 or less."""


def read_masks(content: Tensor, styles: Sequence[Tensor], content_from: Path, styles_from: Sequence[Path]) -> tuple[Masks, list[str]]:
    """Masks from files: a picture of flat colours, or a folder of one picture a class, for the content and for each style.

    Args:
        content: (1, 3, h, w) in [-1, 1]; its masks are brought to its size.
        styles: pictures (1, 3, h', w').
        content_from: file or folder of the content's classes.
        styles_from: one for each style.

    Returns:
        the masks of the classes that all share, and notes on what was merged or left out, a sentence each.

    Raises:
        BadInput: for a file that cannot be read, one that shows no flat colours, or pictures that share no class.
    """
    if len(styles_from) != len(styles):
        raise BadInput(f"{len(styles_from)} masks for {len(styles)} style pictures; expected one for each")
    places = [content_from, *styles_from]
    flat = {path: read_rgb(path) for path in places if not path.is_dir()}
    palette = palette_of(list(flat.values())) if flat else {}
    found = [_classes_in(path) if path.is_dir() else flat_classes(flat[path], palette) for path in places]
    return matched(content, styles, found[0], found[1:])


# --- flat colours ---------------------------------------------------------------------------------------------------------


def palette_of(pictures: Sequence[np.ndarray]) -> dict[str, Colour]:
    """The flat colours of pictures (h, w, 3) uint8: the nine where they fit all of them, else the pictures' own, the most frequent first.

    Raises:
        BadInput: where no few colours fit, as in a photograph.
    """
    colours, counts = np.unique(np.concatenate([p.reshape(-1, 3) for p in pictures]), axis=0, return_counts=True)
    return NINE if _fits(NINE, colours, counts) else _own_palette(colours, counts)


def _own_palette(colours: np.ndarray, counts: np.ndarray) -> dict[str, Colour]:
    """The most frequent colour (n, 3), then the most frequent of those that are far from it, while one stands for enough pixels."""
    own: dict[str, Colour] = {}
    left, n = np.argsort(-counts, kind="stable"), counts.sum()
    while len(left) and len(own) < MOST_CLASSES:
        r, g, b = (int(v) for v in colours[left[0]])
        near = _near(colours[left], [(r, g, b)], FIRM)
        if counts[left[near]].sum() < TINY / 2 * n:
            break
        own[f"#{r:02x}{g:02x}{b:02x}"] = (r, g, b)
        left = left[~near]
    if not _fits(own, colours, counts):
        raise BadInput(f"the masks show no flat colours: too few pixels are of the {len(own)} most frequent. Expected one colour a class")
    return own


def _fits(palette: Mapping[str, Colour], colours: np.ndarray, counts: np.ndarray) -> bool:
    near = _near(colours, list(palette.values()), FLAT) if palette else np.zeros(len(colours), dtype=bool)
    return bool(counts[near].sum() >= MOSTLY * counts.sum())


def _distances(pixels: np.ndarray, palette: Sequence[Colour]) -> np.ndarray:
    """(..., 3) -> (..., k), in units of 0 to 255."""
    return np.linalg.norm(pixels[..., None, :].astype(np.float32) - np.asarray(palette, dtype=np.float32), axis=-1)


def _near(pixels: np.ndarray, palette: Sequence[Colour], most: float) -> np.ndarray:
    """Whether pixels (..., 3) lie at most so far from a colour, bool (...)."""
    return np.asarray(_distances(pixels, palette).min(-1) <= most)


def flat_classes(pixels: np.ndarray, palette: Mapping[str, Colour]) -> Segments:
    """Each pixel of uint8 (h, w, 3) by its nearest colour; one that is near to none is of the class of the nearest pixel that is.

    A blend of two colours along an edge may be nearest to a third (black and white make grey), so such pixels do not decide for
    themselves; nor does a colour that nowhere fills 3x3 px, where any other does.
    """
    from scipy.ndimage import distance_transform_edt

    distances = _distances(pixels, list(palette.values()))
    label, firm = distances.argmin(-1), distances.min(-1) <= FIRM
    filling = [i for i in range(len(palette)) if _fills(firm & (label == i))]
    firm &= np.isin(label, filling) if filling else True
    if firm.any() and not firm.all():
        y, x = distance_transform_edt(~firm, return_distances=False, return_indices=True)
        label = label[y, x]
    return {name: torch.from_numpy(label == i).float() for i, name in enumerate(palette) if (label == i).any()}


def _fills(where: np.ndarray) -> bool:
    """Whether 3x3 px of bool (h, w) are true together."""
    from scipy.ndimage import binary_erosion

    return bool(binary_erosion(where, np.ones((3, 3))).any())


# --- a folder -------------------------------------------------------------------------------------------------------------


def _classes_in(folder: Path) -> Segments:
    """One gray picture a class, named by its file: black is 0, white 1. Where they leave a part of the picture open, it is "rest"."""
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in READ)
    if not files:
        raise BadInput(f"{folder} holds no pictures; expected one of each class, such as sky.png")
    gray = {p.stem: torch.from_numpy(read_rgb(p).mean(-1) / 255).float() for p in files}
    sizes = {tuple(m.shape) for m in gray.values()}
    if len(sizes) > 1:
        raise BadInput(f"{folder}: its pictures have sizes {', '.join(f'{w}x{h}' for h, w in sorted(sizes))} px; expected one size")
    total = torch.stack(list(gray.values())).sum(0)
    shared = {name: m / total.clamp(min=1) for name, m in gray.items()}
    rest = (1 - total).clamp(min=0)
    return shared | ({"rest": rest} if float(rest.mean()) >= TINY and "rest" not in shared else {})


# --- clusters -------------------------------------------------------------------------------------------------------------


def clustered(content: Tensor, styles: Sequence[Tensor], k: int, seed: int = 0) -> tuple[Masks, list[str]]:
    """Masks by k-means on colour and place, of the pixels of all pictures together.

    Colours are standardised picture by picture: the bright part of a night meets the bright part of a day. Classes are named from
    "1", the highest in the content.

    Args:
        content: (1, 3, h, w) in [-1, 1].
        styles: pictures (1, 3, h', w').
        k: clusters; fewer may remain.
        seed: of k-means.

    Raises:
        BadInput: for a k below 1 or above 32.
    """
    from sklearn.cluster import KMeans

    require_whole("clusters", k, 1, MOST_CLASSES)
    shrunk = [_shrunk(p) for p in (content, *styles)]
    rows = [_colours_and_places(p) for p in shrunk]
    means = KMeans(n_clusters=k, n_init=4, random_state=seed).fit(np.concatenate(rows))
    order = np.argsort(np.argsort(means.cluster_centers_[:, -1], kind="stable"))  # the last column is the height from above
    labels = [torch.from_numpy(order[means.predict(r)]).reshape(p.shape[-2:]) for r, p in zip(rows, shrunk, strict=True)]
    found = [{str(i + 1): (label == i).float() for i in range(k)} for label in labels]
    if not _shared(found):
        whole = [{"all": torch.ones(p.shape[-2:])} for p in (content, *styles)]
        masks, _ = matched(content, styles, whole[0], whole[1:])
        return masks, ["The pictures share no cluster: the style is taken from everywhere."]
    return matched(content, styles, found[0], found[1:])


def _shrunk(picture: Tensor) -> Tensor:
    """(1, 3, h, w), its longer side at most CLUSTERED_SIDE."""
    h, w = picture.shape[-2:]
    scale = min(1.0, CLUSTERED_SIDE / max(h, w))
    size = (max(1, round(h * scale)), max(1, round(w * scale)))
    return F.interpolate(picture.detach().cpu().float(), size=size, mode="area").expand(-1, 3, -1, -1)


def _colours_and_places(picture: Tensor) -> np.ndarray:
    """(h w, 5) float64: red, green and blue in standard deviations from their means, x and y in [-.5, .5] times PLACE_WEIGHT."""
    h, w = picture.shape[-2:]
    smooth = F.avg_pool2d(picture, BLUR, 1, BLUR // 2, count_include_pad=False)
    rows = smooth[0].flatten(1).T.double()
    rows = (rows - rows.mean(0)) / rows.std(0, correction=0).clamp(min=1e-6)
    y, x = torch.meshgrid(*(((torch.arange(n) + 0.5) / n - 0.5).double() for n in (h, w)), indexing="ij")
    return torch.cat([rows, torch.stack([x.flatten(), y.flatten()], 1) * torch.tensor(PLACE_WEIGHT)], 1).numpy()


# --- classes that not all pictures have -----------------------------------------------------------------------------------


def matched(content: Tensor, styles: Sequence[Tensor], of_content: Segments, of_styles: Sequence[Segments]) -> tuple[Masks, list[str]]:
    """Masks of the classes that cover at least 1 % of the content and of every style, and notes on the others.

    Any other class of the content is merged into the shared one that is nearest to it in the content: the distance is that of mean
    colours (red, green, blue in [0, 1]) and mean places (x and y as parts of the width and the height), squares added. Other classes
    of a style are not used.

    Raises:
        BadInput: where no class is shared.
    """
    sized = [_sized(s, p) for s, p in zip((of_content, *of_styles), (content, *styles), strict=True)]
    names = _shared(sized)
    if not names:
        shown = "; ".join(f"{what} has {_listed(s)}" for what, s in zip(["the content", *["a style"] * len(styles)], sized))
        raise BadInput(f"the masks share no class that covers {TINY:.0%} of each picture: {shown}")
    notes, kept = [], {name: sized[0][name].clone() for name in names}
    for orphan in (n for n in sized[0] if n not in names and float(sized[0][n].sum()) > 0):
        near = _nearest(content, sized[0], orphan, names)
        kept[near] += sized[0][orphan]
        notes.append(f"The content's class {orphan} ({float(sized[0][orphan].mean()):.1%}) goes with {near}: {_why(orphan, sized)}.")
    for segments in sized[1:]:
        unused = {n: m for n, m in segments.items() if n not in names and float(m.mean()) >= TINY}
        notes += [f"The style's class {n} ({float(m.mean()):.1%}) is not used: the content has no such part." for n, m in unused.items()]
    return Masks(_stacked(kept, content), [_stacked(s, p, names) for s, p in zip(sized[1:], styles, strict=True)], names), notes


def _sized(segments: Segments, picture: Tensor) -> Segments:
    """At the picture's size; soft along edges where it shrinks."""
    size = picture.shape[-2:]
    return {name: F.interpolate(m.float()[None, None], size=size, mode="area")[0, 0] for name, m in segments.items()}


def _shared(found: Sequence[Segments]) -> tuple[str, ...]:
    return tuple(n for n in found[0] if all(n in s and float(s[n].mean()) >= TINY for s in found))


def _nearest(content: Tensor, segments: Segments, orphan: str, names: Sequence[str]) -> str:
    means = {n: _colour_and_place(content, segments[n]) for n in (orphan, *names)}
    return min(names, key=lambda n: float((means[n] - means[orphan]).square().sum()))


def _colour_and_place(content: Tensor, membership: Tensor) -> Tensor:
    """(5,), means over the class."""
    h, w = membership.shape
    y, x = torch.meshgrid(*((torch.arange(n) + 0.5) / n for n in (h, w)), indexing="ij")
    seen = torch.cat([(content[0].detach().cpu().float().expand(3, h, w) + 1) / 2, torch.stack([x, y])])
    return (seen * membership).sum((1, 2)) / membership.sum()


def _why(orphan: str, sized: Sequence[Segments]) -> str:
    return "it is small" if float(sized[0][orphan].mean()) < TINY else "a style lacks it"


def _listed(segments: Segments) -> str:
    return ", ".join(f"{n} ({float(m.mean()):.1%})" for n, m in segments.items()) or "nothing"


def _stacked(segments: Segments, picture: Tensor, names: Sequence[str] | None = None) -> Tensor:
    """(1, k, h, w) on the picture's device."""
    return torch.stack([segments[n] for n in names or segments])[None].to(picture)
