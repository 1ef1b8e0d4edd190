"""A person's own pictures, edited by one command: `condgen edit RUN VERB FILES... --out FILE.png`.

An edit is a module with `draw(subject, ...)`, found by the table below; its keyword arguments are its options, stated once. Before it
stands `subject` (files, conditions, latents), behind it `sheet` (a picture, a film, and the latents). Nothing heavy is imported before
an edit is made.
"""

import inspect
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from condgen.errors import BadInput, require_whole, unknown


class Edit(NamedTuple):
    """How it is called, what it does in a line, the module that does it, how many files it may be given, and in which latents it works
    where none are named."""

    usage: str
    about: str
    module: str
    files: range
    space: str | None = None


MOST = 100
"""Files at once."""
EDITS: dict[str, Edit] = {
    "interpolate": Edit("A B [C ...]", "from each picture to the next", "condgen.edits.interpolate", range(2, MOST + 1)),
    "analogy": Edit("A B C", "A is to B as C is to what?", "condgen.edits.analogy", range(3, 4)),
    "attribute": Edit("FILE ... --name NAME", "an attribute added or taken away", "condgen.edits.attribute", range(1, MOST + 1)),
    "constrain": Edit("FILE ... --want WHAT", "changed until what you ask for holds", "condgen.edits.constrain", range(1, MOST + 1)),
    "invert": Edit("FILE ...", "the latent that draws it, found by descent", "condgen.edits.inversion", range(1, MOST + 1)),
    "grid": Edit("FILE ...", "a sheet between many pictures, or around one", "condgen.edits.grid", range(1, MOST + 1)),
    "mix": Edit("SOURCE STYLE ...", "layers of one picture put into another", "condgen.edits.mix", range(1, MOST + 1), "w+"),
}
FLAGS = {"names": "--name", "wants": "--want"}
"""Options whose word on the command line is not --NAME."""
KINDS = (".png", ".mp4", ".npz")
EPILOG = """verbs:
{verbs}

FILE is a picture, cropped and resized as for training, or an .npz with x or latents z, such as `condgen sample` and this command
write; FILE.npz:3 is its row 3. OUT.png holds a picture with titles (--bare: the edited ones alone), OUT.mp4 a film; beside it
OUT.npz holds the edited pictures, their latents and conditions, and can be edited further. What a model is asked besides is said by
--set, as for `condgen sample`; what is left open is taken from the training row under which the model comes nearest to your picture.
A model without an encoder is searched for the latent by descent, which takes a while and is said.

  condgen edit runs/vae-mnist interpolate my-3.png my-8.png --out walk.png
  condgen edit runs/vae-lfw64 attribute me.jpg --name smiling --balance male --out smile.mp4
  condgen edit runs/vae-mnist constrain my-7.png --want "ink>=0.2" --out bold.png
  condgen edit runs/stylealae-lfw32 mix me.jpg you.jpg --layers coarse --out mix.png"""


class Done(NamedTuple):
    """What was written, for a program and for a person."""

    told: dict[str, Any]
    said: str


def arguments(parser: ArgumentParser) -> None:
    """The options of the command line."""
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = EPILOG.format(verbs="\n".join(f"  {f'{name} {e.usage}':36} {e.about}" for name, e in EDITS.items()))
    parser.add_argument("run", metavar="RUN", help="a run, a saved model, or a preset trained under runs/")
    parser.add_argument("verb", metavar="VERB", help="one of the verbs below")
    parser.add_argument("files", nargs="*", metavar="FILE", help="your pictures")
    parser.add_argument("--out", type=Path, required=True, help="a .png, an .mp4 or an .npz")
    parser.add_argument("--latents", type=Path, help="where the latents go; default: OUT with .npz")
    parser.add_argument("--set", action="append", dest="asked", metavar="NAME=VALUE", help="a condition of your pictures")
    parser.add_argument("--seed", type=int, help="of what is drawn by chance (default: 0)")
    parser.add_argument("--bare", action="store_true", default=None, help="the edited pictures alone: no titles, no originals")
    parser.add_argument("--fps", type=int, help="pictures a second of a film (default: 12)")
    parser.add_argument("--invert", action="store_true", default=None, help="find latents by descent though there is an encoder")
    parser.add_argument("--space", metavar="z|w|w+", help="which latents are edited, of a model with styles (default: its own; mix: w+)")
    parser.add_argument("--descent", type=int, metavar="STEPS", help="steps of a descent to a latent (default: 300)")
    parser.add_argument("--steps", type=int, help="interpolate, attribute: pictures on the way; constrain: most steps of the search")
    parser.add_argument("--how", help="interpolate: slerp, lerp or uniform; by default what suits the model")
    parser.add_argument("--grid", metavar="ROWSxCOLUMNS", help="analogy, attribute with two names: draw all between the corners")
    parser.add_argument("--name", action="append", dest="names", metavar="NAME", help="attribute: which; NAME, LABEL=VALUE, blur or motion")
    parser.add_argument("--amount", type=float, help="attribute: how much to add; 1 is from the mean without to the mean with it")
    parser.add_argument("--low", type=float, help="attribute: from (default: -1)")
    parser.add_argument("--high", type=float, help="attribute: to (default: 2)")
    parser.add_argument("--svm", action="store_true", default=None, help="attribute: by a support vector machine")
    parser.add_argument("--balance", action="append", metavar="NAME", help="attribute: count all combinations with these the same")
    parser.add_argument("--renorm", action="store_true", default=None, help="analogy, attribute: keep the norm of the latents")
    parser.add_argument("--rows", type=int, help="attribute, constrain, grid: training samples that are looked at")
    parser.add_argument("--want", action="append", dest="wants", metavar="WHAT", help="constrain: NAME=VALUE, or ink>=0.3")
    parser.add_argument("--reward", metavar="FILE.py:FUNCTION", help="constrain: a function of your own; it is run")
    parser.add_argument("--distance", type=float, help="constrain: weight of staying near, of rules (default: 0)")
    parser.add_argument("--realism", type=float, help="constrain: weight of staying where training data lie (default: 0.1)")
    parser.add_argument("--restarts", type=int, help="invert: descents for each picture, of which the best counts (default: 1)")
    parser.add_argument("--spacing", type=int, help="grid: cells from one of your pictures to the next (default: 4)")
    parser.add_argument("--columns", type=int, help="grid: of your pictures (default: about a square)")
    parser.add_argument("--neighbours", type=int, metavar="N", help="grid: your picture and the nearest training pictures, N in all")
    parser.add_argument(
        "--layers", action="append", help="mix: that the styles give: coarse, middle, fine, or such as 0-3,5 (default: each)"
    )
    parser.add_argument("--sources", type=int, metavar="N", help="mix: the first N files give all other layers (default: 1)")


def edit(
    run: str,
    verb: str,
    files: Sequence[str | Path],
    out: str | Path,
    latents: str | Path | None = None,
    asked: Sequence[str] | Mapping[str, Any] = (),
    seed: int = 0,
    bare: bool = False,
    fps: int = 12,
    invert: bool = False,
    descent: int = 300,
    space: str | None = None,
    **options: Any,
) -> Done:
    """Make one of `EDITS` of a person's files.

    Args:
        run: a run, a saved model, or a preset trained under runs/.
        verb: a key of `EDITS`.
        files: pictures or .npz files; `FILE.npz:3` is row 3.
        out: ending in .png, .mp4 (which needs the extra `video`) or .npz; its folder is made.
        latents: where the edited pictures go with their latents and conditions; by default `out` with .npz.
        asked: conditions of the files, as of `condgen sample --set`.
        seed: of what is drawn by chance.
        bare: write the edited pictures alone.
        fps: pictures a second of a film.
        invert: find latents by descent though the model has an encoder.
        descent: steps of that descent.
        space: the latents that are edited, "z", "w" or "w+", of a model with styles; by default its own, and for mix "w+".
        options: the keyword arguments of the verb's `draw`.

    Returns:
        what was written: a mapping for programs, and words.

    Raises:
        BadInput: for an unknown verb or option, a wrong number of files, a file that cannot be read, a model that lacks what the edit
            needs, or a place that cannot be written.
    """
    if verb not in EDITS:
        raise unknown("verb", verb, EDITS)
    for name, value, least in (("--seed", seed, 0), ("--fps", fps, 1), ("--descent", descent, 0)):
        require_whole(name, value, least)
    _check_files(verb, files)
    draw = import_module(EDITS[verb].module).draw
    _check_options(verb, draw, options)
    from condgen.edits.sheet import check_kind, check_place, write
    from condgen.edits.subject import Manner, subject_of

    place = check_place(Path(out), None if latents is None else Path(latents), files)
    manner = Manner(seed, invert, descent, film=place.out.suffix == ".mp4", space=space or EDITS[verb].space)
    subject = subject_of(run, files, asked, manner)
    check_kind(subject, place.out)
    sheet = draw(subject, **options)
    write(sheet, subject, place, bare, fps)
    told = {
        "out": str(place.out),
        "latents": str(place.latents),
        "verb": verb,
        "files": [str(f) for f in files],
        "n": len(sheet.z),
        **sheet.told,
    }
    return Done(
        told, f"{sheet.said}\n{verb} written to {place.out}" + (f", latents to {place.latents}" if place.latents != place.out else "")
    )


def _check_files(verb: str, files: Sequence[str | Path]) -> None:
    allowed = EDITS[verb].files
    if len(files) not in allowed:
        many = f"{allowed[0]}" if len(allowed) == 1 else f"{allowed[0]} to {allowed[-1]}"
        raise BadInput(f"{verb} takes {many} files, {len(files)} given: condgen edit RUN {verb} {EDITS[verb].usage} --out FILE.png")


def _check_options(verb: str, draw: Callable[..., Any], options: Mapping[str, Any]) -> None:
    known = [k for k, p in inspect.signature(draw).parameters.items() if p.default is not p.empty]
    for option in options:
        if option not in known:
            raise BadInput(f"{verb} has no option {flag(option)}; it has: {', '.join(flag(k) for k in known) or 'none'}")


def flag(option: str) -> str:
    """An option as the command line writes it."""
    return FLAGS.get(option, f"--{option}")
