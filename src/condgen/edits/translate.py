"""A person's pictures, folders of them and clips, drawn in another domain: `condgen translate RUN FILE ... --to DOMAIN`.

A picture keeps its size where the model's nets allow. Each finished picture is written whole, with a note in the PNG of what it was made
from: weights, domain, size and the file's content; a clip has the same note at its end. The same command again keeps those whose note still
holds and makes the others. Of a clip the finished frames wait in a hidden folder beside it until all are there.
"""

import re
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from condgen.edits import Done
from condgen.errors import BadInput, require_whole, unknown

if TYPE_CHECKING:  # tensors and pictures are imported once there is something to translate
    from condgen.edits.translating import Job, Tally
    from condgen.model import Model

SMALLEST, LARGEST = 16, 8192
"""Of --size, in px."""
EPILOG = """FILE is a picture, a folder of pictures, or a clip (.mp4 and the like). A picture becomes a PNG, a folder one of PNGs
with the same names, a clip an .mp4 without sound. Clips in a folder are named and left: name them as files. The same command again goes on
where it stopped: what is finished is kept.

Pictures keep their size: above 1 megapixel they go through in tiles, above 64 they are refused. What a run learnt at 64 px it draws as
fine as there; --size 256 brings the shorter side to 256 px first, that of smaller pictures too.

  condgen translate runs/cyclegan-horse2zebra meadow.jpg --to zebra --size 256 --out meadow-zebra.png
  condgen translate runs/cyclegan-horse2zebra horses/ --to zebra --out zebras/"""


def arguments(parser: ArgumentParser) -> None:
    """The options of the command line."""
    parser.formatter_class = RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("run", metavar="RUN", help="a run, a saved model, or a preset trained under runs/, of a model that translates")
    parser.add_argument("files", nargs="+", metavar="FILE", help="pictures, folders of pictures, clips")
    parser.add_argument("--to", metavar="DOMAIN", help="the domain to draw them in; `condgen describe RUN` names those there are")
    parser.add_argument("--from", dest="source", metavar="DOMAIN", help="the domain they are of; of two domains, says --to as well")
    parser.add_argument("--out", type=Path, help="a .png, an .mp4 or a folder; default: beside each FILE, with .DOMAIN in its name")
    parser.add_argument("--size", type=int, metavar="PX", help="bring the shorter side to this first (default: as it is)")


def translate(
    run: str,
    files: Sequence[str | Path],
    to: str | None = None,
    source: str | None = None,
    out: str | Path | None = None,
    size: int | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> Done:
    """Draw files in another domain.

    Args:
        run: a run, a saved model, or a preset trained under runs/.
        files: pictures, folders of pictures, clips.
        to: name of the domain; may be left open where there are two and `source` is given.
        source: name of the domain that the files are of.
        out: where one file goes, ending in .png or .mp4; or the folder for all. By default beside each file.
        size: px that the shorter side is brought to first; None for pictures as they are.
        stopped: asked before each picture and each frame; where it answers True, what is finished is left, and the call returns.

    Returns:
        what was written: a mapping for programs, and words.

    Raises:
        BadInput: for a model that does not translate, an unknown domain, a file that cannot be used, a place that must not be written.
            Of a folder, pictures that cannot be read are named and counted instead, unless that is all of them.
    """
    from condgen import api
    from condgen.editing.translation import Translator
    from condgen.edits.translating import Tally, Work

    if size is not None:
        require_whole("--size", size, SMALLEST, LARGEST)
    jobs_of = [_checked(Path(f)) for f in files]
    model = api.load(run)
    translator = Translator(_placed(model), direction(model, to, source))
    jobs = planned(jobs_of, translator.to, None if out is None else Path(out))
    tally = Tally()
    work = Work(translator, size, tally, stopped)
    work.refuse_strangers([job for job in jobs if out is None or job.out != Path(out)])
    work.all(jobs)
    if not tally.made + tally.kept and not tally.stopped:
        raise BadInput(f"none of {len(jobs)} pictures could be translated: {'; '.join(tally.failed[:4])}")
    return _done(tally, jobs, translator.to, out)


def _done(tally: "Tally", jobs: Sequence["Job"], to: str, out: str | Path | None) -> Done:
    where = str(out or (jobs[0].out if len(jobs) == 1 else jobs[0].out.parent))
    told = {"out": where, "to": to, "made": tally.made, "kept": tally.kept, "failed": tally.failed, "stopped": tally.stopped}
    said = f"{tally.made} translated to {to}" + (f", {tally.kept} kept from before" if tally.kept else "") + f": {where}"
    if tally.stopped:
        said += f"\nstopped: {tally.made + tally.kept} of {len(jobs)} are done; the same command goes on from here"
    if tally.failed:
        said += f"\n{len(tally.failed)} could not be: {'; '.join(tally.failed[:12])}" + (" ..." if len(tally.failed) > 12 else "")
    return Done(told, said)


def _placed(model: "Model") -> "Model":
    import torch

    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def direction(model: "Model", to: str | None, source: str | None) -> str:
    """The domain that is meant. Raises BadInput for a name the model does not know, and where none follows from what was given."""
    from condgen.editing.space import require
    from condgen.model import domain_of

    require(model, "translate")
    names = domain_of(model)[1].names
    for word in (to, source):
        if word is not None and word not in names:
            raise unknown("domain", word, names)
    others = [name for name in names if name != source]
    if to is None and source is not None and len(others) == 1:
        return others[0]
    if to is None:
        raise BadInput(f"to which domain? Say it: {' or '.join(f'--to {name}' for name in names)}")
    if to == source:
        raise BadInput(f"--from and --to are both {to!r}: there is nothing to translate")
    return to


# --- which files ----------------------------------------------------------------------------------------------------------


def _checked(path: Path) -> Path:
    """Raises BadInput for what is not there, or is neither a picture, a folder nor a clip."""
    from condgen.data.images import READ
    from condgen.data.video import SUFFIXES, is_clip

    if not path.exists():
        near = sorted(p.name for p in path.parent.iterdir() if p.suffix == path.suffix)[:4] if path.parent.is_dir() else []
        raise BadInput(f"there is no file {path}" + (f"; beside it are {', '.join(near)}" if near else ""))
    if not path.is_dir() and not is_clip(path) and path.suffix.lower() not in READ:
        raise BadInput(f"{path} is neither a picture ({', '.join(READ)}), a clip ({', '.join(SUFFIXES)}) nor a folder")
    return path


def planned(files: Sequence[Path], to: str, out: Path | None) -> list["Job"]:
    """What becomes what. Raises BadInput where two would become one, or a file would replace itself."""
    word, single = re.sub(r"[^\w.-]+", "-", to), len(files) == 1
    jobs = [
        job for file in files for job in (_of_folder(file, word, out, single) if file.is_dir() else [_of_file(file, word, out, single)])
    ]
    taken: dict[Path, Path] = {}
    own = {job.source.resolve() for job in jobs}
    for job in jobs:
        at = job.out.resolve()
        if at in taken:
            raise BadInput(f"{taken[at]} and {job.source} would both become {job.out}; translate them into folders of their own, by --out")
        if at in own:
            raise BadInput(f"{job.out} is one of the files to be translated; write to another place, by --out")
        taken[at] = job.source
    return jobs


def _of_file(file: Path, word: str, out: Path | None, single: bool) -> "Job":
    from condgen.data.video import is_clip
    from condgen.edits.translating import Job

    ending = ".mp4" if is_clip(file) else ".png"
    if out is None:
        return Job(file, file.with_name(f"{file.stem}.{word}{ending}"), True)
    if out.is_dir() or not out.suffix or not single:
        return Job(file, out / f"{file.stem}{ending}", True)
    if out.suffix.lower() != ending:
        raise BadInput(f"{out}: {file.name} becomes a {ending}; name one, or a folder")
    return Job(file, out, True)


def _of_folder(folder: Path, word: str, out: Path | None, single: bool) -> list["Job"]:
    """Its pictures, also those in folders below; what is not read, and clips, too, so that none is passed over in silence."""
    from condgen.data.video import is_clip
    from condgen.edits.translating import Job

    into = folder.with_name(f"{folder.resolve().name}.{word}") if out is None else out if single else out / folder.resolve().name
    if into.is_file() or into.suffix.lower() in (".png", ".mp4"):
        raise BadInput(f"{into}: {folder} is a folder, and so is what it becomes")
    files = sorted(file for file in folder.rglob("*") if _is_meant(file, folder) and into.resolve() not in file.resolve().parents)
    if not files:
        raise BadInput(f"{folder} holds no pictures")
    stems = [file.with_suffix("") for file in files if not is_clip(file)]
    alone = [not is_clip(file) and stems.count(file.with_suffix("")) == 1 for file in files]
    names = [file.with_suffix(".png") if only else Path(f"{file}.png") for file, only in zip(files, alone, strict=True)]
    return [Job(file, into / name.relative_to(folder), False) for file, name in zip(files, names, strict=True)]


def _is_meant(file: Path, folder: Path) -> bool:
    from condgen.data.images import NOT_READ, READ
    from condgen.data.video import SUFFIXES

    hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
    return not hidden and file.suffix.lower() in (*READ, *NOT_READ, *SUFFIXES) and file.is_file()
