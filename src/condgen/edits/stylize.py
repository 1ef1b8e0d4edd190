"""A person's photograph, or clip, painted in the style of other pictures: `condgen stylize PHOTO --style PAINTING`.

What is asked is checked and named here; `painting` does it. Nothing heavy is imported before that.
"""

from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from condgen.edits import Done
from condgen.errors import BadInput, require_positive, require_range, require_whole, unknown

SMALLEST, LARGEST = 32, 8192
"""Of --size, in px."""
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
"""Endings that a painting is written with."""
EPILOG = """PHOTO is a picture, or a clip (.mp4 and the like; needs the extra `video`). Its pixels are descended until a feature net sees
the photo's content and the painting's style in them: about half a minute at 512 px on two cores. A large picture is painted small first.
Ctrl-C keeps what was done beside the output, and the same command goes on from there.

--style-weight is the readable middle at 30 for the recipe `relative`: 300 leaves less of the photo, 3 less of the painting. Weights of
the recipes gatys2016, johnson and athalye are those published, for VGG-19.

  condgen stylize photo.jpg --style night.jpg
  condgen stylize photo.jpg --style night.jpg --style scream.jpg --share .7 .3 --colours keep --out mixed.png
  condgen stylize photo.jpg --style dusk.jpg --photo --clusters 4
  condgen stylize photo.jpg --style night.jpg --fast
  condgen stylize clip.mp4 --style night.jpg --size 256 --out painted.mp4"""


@dataclass(frozen=True)
class Asked:
    """What a person asked for; see `stylize`."""

    content: Path
    styles: tuple[Path, ...]
    out: Path
    shares: tuple[float, ...] | None = None
    recipe: str = "relative"
    start: str | None = None
    size: int | None = None
    steps: int | None = None
    style_weight: float | None = None
    tv: float | None = None
    style_scale: float = 1.0
    colours: str = "style"
    net: str = "auto"
    pooling: str | None = None
    optimizer: str | None = None
    seed: int = 0
    fast: bool = False
    strength: float = 1.0
    method: str | None = None
    photo: bool = False
    photo_weight: float | None = None
    masks: Path | None = None
    style_masks: tuple[Path, ...] = ()
    clusters: int | None = None
    variant: str = "temporal"


def arguments(parser: ArgumentParser) -> None:
    """The options of the command line."""
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("content", metavar="PHOTO", help="the picture or clip to paint")
    parser.add_argument(
        "--style",
        action="append",
        dest="styles",
        required=True,
        metavar="FILE",
        help="a picture whose style is taken; several times for a mixture",
    )
    parser.add_argument("--share", nargs="+", type=float, dest="shares", metavar="S", help="of each style, in order (default: equal)")
    parser.add_argument("--out", type=Path, help="a .png, .jpg, .webp, or .mp4 of a clip; default: PHOTO.STYLE.png beside the photo")
    parser.add_argument("--size", type=int, metavar="PX", help="the longer side (default: the photo's own, at most 512; of a clip 256)")
    parser.add_argument("--recipe", help="relative, gatys2016, johnson or athalye: how losses are measured (default: relative)")
    parser.add_argument(
        "--start", help="content, or noise, as published, which is freer with the photo (default: content; of --photo noise)"
    )
    parser.add_argument(
        "--steps", type=int, help="evaluations at the smallest size; each larger one has half as many (default: the recipe's)"
    )
    parser.add_argument("--style-weight", type=float, metavar="B", help="how much the style counts beside the content")
    parser.add_argument("--tv", type=float, metavar="W", help="how much smoothness counts")
    parser.add_argument("--style-scale", type=float, metavar="F", help="2 for strokes twice as wide (default: 1)")
    parser.add_argument("--colours", help="style; keep: the photo's, under painted light and shade; match: a style recoloured first")
    parser.add_argument(
        "--net", help="the feature net: distilled, vgg19, squeezenet, a features-... run, or KIND:FILE (default: the best here)"
    )
    parser.add_argument("--pooling", help="of the net: max or average (default: max, and average for gatys2016)")
    parser.add_argument("--optimizer", help="lbfgs or adam (default: the recipe's)")
    parser.add_argument("--seed", type=int, help="of the noise (default: 0)")
    parser.add_argument(
        "--fast", action="store_true", default=None, help="by one pass of the distilled encoders and decoders: seconds, less faithful"
    )
    parser.add_argument("--strength", type=float, help="of --fast: 1 for the style's statistics, 0 for the photo's own (default: 1)")
    parser.add_argument("--method", help="of --fast: wct, or adain, which keeps more of the photo (default: wct)")
    parser.add_argument("--photo", action="store_true", default=None, help="stay a photograph: take colours and light alone, edges stay")
    parser.add_argument(
        "--photo-weight",
        type=float,
        metavar="L",
        help="of --photo: how much staying one counts (default: 0.01 for the recipe relative; others need it said)",
    )
    parser.add_argument(
        "--masks", type=Path, metavar="FILE", help="classes of the photo: a picture of flat colours, or a folder of masks such as sky.png"
    )
    parser.add_argument("--style-masks", action="append", type=Path, metavar="FILE", help="the same classes of each style, in order")
    parser.add_argument("--clusters", type=int, metavar="K", help="K classes, found by colour and place")
    parser.add_argument("--variant", help="of a clip: temporal, long-term, multi-pass, or the simpler warped, previous, random")


def stylize(
    content: str | Path,
    styles: Sequence[str | Path],
    out: str | Path | None = None,
    stopped: Callable[[], bool] = lambda: False,
    shares: Sequence[float] | None = None,
    style_masks: Sequence[str | Path] = (),
    **options: object,
) -> Done:
    """Paint a photograph or a clip in the style of other pictures, and write it.

    Args:
        content: a picture or a clip.
        styles: pictures.
        out: where it goes; by default beside the content, its name with the first style's.
        stopped: asked after every evaluation; where it answers True the state is kept and the call returns.
        shares: of each style; equal by default.
        style_masks: of a photograph with masks, those of each style.
        options: the other fields of `Asked`, as the command line's --help tells them.

    Returns:
        what was written: a mapping for programs (where, with which net, how many evaluations, the losses it came to), and words.

    Raises:
        BadInput: for files that cannot be used, unknown names, numbers out of range, options that do not go together, a place that must
            not be written, or no feature net at hand.
    """
    known = {name for name in Asked.__dataclass_fields__ if name not in ("content", "styles", "out", "shares", "style_masks")}
    for name in options:
        if name not in known:
            raise unknown("option", name, sorted(known))
    photo, paintings = Path(content), tuple(Path(s) for s in styles)
    for file in (photo, *paintings):
        _require_file(file)
    place = Path(out) if out is not None else _beside(photo, paintings)
    fields = {**options, "shares": tuple(shares) if shares is not None else None, "style_masks": tuple(Path(m) for m in style_masks)}
    asked = Asked(photo, paintings, place, **fields)  # type: ignore[arg-type]
    _check(asked)
    _check_place(asked, named=out is not None)
    return _doing(asked)(asked, stopped)


def _doing(asked: Asked) -> Callable[[Asked, Callable[[], bool]], Done]:
    from condgen.data.video import is_clip

    if is_clip(asked.content):
        from condgen.edits.filming import film

        return film
    if asked.fast:
        from condgen.edits import at_once

        return lambda asked, stopped: at_once.paint(asked)
    from condgen.edits.painting import paint

    return paint


def _beside(photo: Path, styles: Sequence[Path]) -> Path:
    if not styles:
        raise BadInput("no style is given: --style night.jpg")
    from condgen.data.video import is_clip

    return photo.with_name(f"{photo.stem}.{styles[0].stem}{'.mp4' if is_clip(photo) else '.png'}")


def _require_file(file: Path) -> None:
    if not file.is_file():
        near = sorted(p.name for p in file.parent.iterdir() if p.suffix == file.suffix)[:4] if file.parent.is_dir() else []
        what = f"{file} is a folder; expected a picture" if file.is_dir() else f"there is no file {file}"
        raise BadInput(what + (f"; beside it are {', '.join(near)}" if near else ""))


# --- what goes together ---------------------------------------------------------------------------------------------------


def _check(asked: Asked) -> None:
    """Raises BadInput for numbers out of range, and for options that do not go together."""
    if asked.size is not None:
        require_whole("--size", asked.size, SMALLEST, LARGEST)
    if asked.steps is not None:
        require_whole("--steps", asked.steps, 1, 100_000)
    require_whole("--seed", asked.seed, 0)
    require_positive(**{"--style-scale": asked.style_scale})
    for name, value in (("--style-weight", asked.style_weight), ("--tv", asked.tv), ("--photo-weight", asked.photo_weight)):
        if value is not None:
            require_range(0, float("inf"), **{name: value})
    require_range(0, 1, **{"--strength": asked.strength})
    if asked.shares is not None and len(asked.shares) != len(asked.styles):
        raise BadInput(f"--share has {len(asked.shares)} numbers for {len(asked.styles)} styles; expected one for each --style")
    _check_ways(asked)


def _check_ways(asked: Asked) -> None:
    from condgen.data.video import is_clip

    clip = is_clip(asked.content)
    ways = [w for w, on in (("--fast", asked.fast), ("--photo", asked.photo), ("a clip", clip)) if on]
    if len(ways) > 1:
        raise BadInput(f"{' and '.join(ways)} do not go together: take one")
    _check_classes(asked, clip)
    if not asked.photo and asked.photo_weight is not None:
        raise BadInput(f"--photo-weight {asked.photo_weight:g} is of --photo: give it too")
    if asked.photo and asked.recipe != "relative" and asked.photo_weight is None:
        raise BadInput(
            f"--photo has a weight for the recipe relative alone; beside the losses of {asked.recipe} say one, by --photo-weight"
        )
    if asked.photo and asked.colours != "style":
        raise BadInput(f"--photo takes the style's colours; --colours {asked.colours} does not go with it")
    if clip and asked.style_scale != 1.0:
        raise BadInput(f"--style-scale {asked.style_scale:g} is of a picture; a clip's styles have the area of its frames")
    if not clip and asked.variant != "temporal":
        raise BadInput(f"--variant {asked.variant} is of a clip, and {asked.content} is a picture")
    if not asked.fast and (asked.strength != 1.0 or asked.method is not None):
        raise BadInput("--strength and --method are of --fast; otherwise --style-weight says how much the style counts")


def _check_classes(asked: Asked, clip: bool) -> None:
    masked = asked.masks is not None or bool(asked.style_masks)
    if (masked or asked.clusters is not None) and (asked.fast or clip):
        raise BadInput(
            f"--masks, --style-masks and --clusters do not go with {'a clip' if clip else '--fast'}: it takes styles from everywhere"
        )
    if masked and asked.clusters is not None:
        raise BadInput(f"masks are given, and {asked.clusters} clusters asked for: one of the two")
    if (asked.masks is None) != (not asked.style_masks):
        raise BadInput("--masks and --style-masks go together: classes of the photo, and the same of each style")
    if masked and len(asked.style_masks) != len(asked.styles):
        raise BadInput(f"{len(asked.style_masks)} --style-masks for {len(asked.styles)} styles; expected one for each --style")


def _check_place(asked: Asked, named: bool) -> None:
    """Raises BadInput for an ending that means nothing, and for a file that must not be replaced."""
    from condgen.data.video import is_clip

    ending, clip = asked.out.suffix.lower(), is_clip(asked.content)
    if clip and ending != ".mp4":
        raise BadInput(f"{asked.out}: a clip is written as .mp4")
    if not clip and ending not in PICTURES:
        raise BadInput(f"{asked.out}: the ending decides what is written: {', '.join(PICTURES)}")
    given = [asked.content, *asked.styles, *([asked.masks] if asked.masks else []), *asked.style_masks]
    if asked.out.resolve() in {g.resolve() for g in given}:
        raise BadInput(f"{asked.out} is one of the files that are read; write to another place, by --out")
    if not named and asked.out.exists() and not _is_ours(asked.out):
        raise BadInput(f"{asked.out} is there, and was not painted by condgen; say where the painting goes, by --out")


NOTE = "condgen-stylize"
"""The text chunk of a PNG that says what it was painted from, and the note of an mp4."""


def _is_ours(file: Path) -> bool:
    from PIL import Image

    from condgen.data.video import is_clip, note_in

    if is_clip(file):
        return (note_in(file) or "").startswith(NOTE)
    try:
        with Image.open(file, formats=("PNG",)) as picture:
            return NOTE in picture.info
    except (OSError, ValueError, SyntaxError):
        return False
