"""The house rules that a machine can check: imports flow one way, names say something, nothing heavy is imported early."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "condgen"
FILES = sorted(ROOT.rglob("*.py"))

# Bottom to top. A file imports from layers below its own, and from its own package.
LAYERS = [
    {"errors"},
    {"conditions", "constraints", "objectives"},
    {"networks", "data", "asking", "run"},
    {"model"},
    {"styled", "backbones"},
    {"models"},
    {"card"},
    {"training", "editing", "evaluation"},
    {"pretrained"},
    {"api", "drawing", "doctor"},
    {"options", "figures"},
    {"edits"},
    {"cli", "studio"},
    {"__main__"},
]
RANK = {name: i for i, names in enumerate(LAYERS) for name in names}
# `Model.save_pretrained` and its two sisters hand over to the file that knows all models, once they are called.
HANDED_UP = {("model", "pretrained")}
# Within a layer rooms do not know each other, but for this: a run draws its grids as the report does.
# And metrics of an edit are measured on the edits that a person makes.
SIDEWAYS = {("training", "evaluation"), ("evaluation", "editing")}
HEAVY = {"matplotlib", "sklearn", "scipy", "skimage", "pandas", "pyarrow", "torchmetrics", "torchvision", "tensorboard", "datasets"}
WEIGHTS_ALONE = {"backbones"}
"""Files that read the official weights of known nets, of which some come as a .pth alone."""
PICKLERS = {"pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}


def room(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").parts[0]


def imported(path: Path, tree: ast.AST) -> Iterator[tuple[int, list[str]]]:
    """(line, absolute dotted name split) of every import, at the top or inside a function."""
    package = ["condgen", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else []
            module = [*start, *(node.module.split(".") if node.module else [])]
            yield from ((node.lineno, [*module, alias.name]) for alias in node.names)


def wrong_way(path: Path, tree: ast.AST) -> list[str]:
    here, found = room(path), []
    for line, (top, *rest) in imported(path, tree):
        if top != "condgen" or not rest or rest[0] == here or (here, rest[0]) in HANDED_UP | SIDEWAYS:
            continue
        if rest[0] in RANK and here in RANK and RANK[rest[0]] >= RANK[here]:
            found.append(f"{path.relative_to(ROOT)}:{line}: {here} imports {rest[0]}, which does not stand below it")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_flow_one_way(path):
    assert wrong_way(path, ast.parse(path.read_text())) == []


@pytest.mark.parametrize(
    "here, code",
    [
        ("conditions.py", "from condgen.networks.embed import embed"),
        ("data/store.py", "from ..model import Model"),
        ("data/store.py", "from condgen import networks"),
        ("networks/mlp.py", "def f():\n    import condgen.models.vae"),
        ("evaluation/judge.py", "from condgen.training import order"),
        ("errors.py", "from condgen.conditions import Label"),
    ],
)
def test_the_check_sees_imports_that_go_up_or_sideways(here, code):
    assert len(wrong_way(ROOT / here, ast.parse(code))) == 1


def test_every_room_has_its_place():
    assert {room(p) for p in FILES} - set(RANK) == {"__init__"}


def test_no_file_has_a_name_that_says_nothing():
    assert [p for p in FILES if p.stem in {"utils", "helpers", "common", "base", "misc"}] == []


def test_no_file_is_longer_than_two_rooms():
    assert [p.name for p in FILES if p.read_text().count("\n") > 400] == []


def unpickles(tree: ast.AST, weights_alone: bool = False) -> list[int]:
    """Lines that would read or write a pickle: the modules, `torch.load`, `torch.save`, `allow_pickle` where it is not False.

    Where `weights_alone`, `torch.load(..., weights_only=True)` may stand: it builds tensors and plain containers, and runs nothing.
    """
    allowed = {id(node.func) for node in ast.walk(tree) if weights_alone and is_of_weights(node)}
    return [node.lineno for node in ast.walk(tree) if is_pickle(node) and id(node) not in allowed]


def is_of_weights(node: ast.AST) -> bool:
    match node:
        case ast.Call(func=ast.Attribute(value=ast.Name(id="torch"), attr="load"), keywords=keywords):
            return any(k.arg == "weights_only" and isinstance(k.value, ast.Constant) and k.value.value is True for k in keywords)
    return False


def is_pickle(node: ast.AST) -> bool:
    match node:
        case ast.Import(names=names):
            return any(a.name.split(".")[0] in PICKLERS for a in names)
        case ast.ImportFrom(module=str(module)):
            return module.split(".")[0] in PICKLERS
        case ast.Attribute(value=ast.Name(id="torch"), attr="load" | "save"):
            return True
        case ast.keyword(arg="allow_pickle", value=value):
            return not (isinstance(value, ast.Constant) and value.value is False)
    return False


def test_nothing_is_unpickled():
    found = {str(p.relative_to(ROOT)): unpickles(ast.parse(p.read_text()), p.stem in WEIGHTS_ALONE) for p in FILES}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.parametrize("code", ["import pickle", "from joblib import load", "torch.load('x')", "np.load('x', allow_pickle=True)"])
def test_the_check_sees_a_pickle(code):
    assert unpickles(ast.parse(code)) == unpickles(ast.parse(code), weights_alone=True) == [1]


def test_weights_alone_are_read_in_one_place():
    assert unpickles(ast.parse("torch.load('x', weights_only=True)")) == [1]
    assert unpickles(ast.parse("torch.load('x', weights_only=True)"), weights_alone=True) == []
    assert unpickles(ast.parse("torch.load('x', weights_only=sure)"), weights_alone=True) == [1]
    assert unpickles(ast.parse("torch.load('x', weights_only=False)"), weights_alone=True) == [1]


def modules_after(code: str) -> set[str]:
    """Top-level modules that a fresh process holds after `code`, whatever it prints or how it exits."""
    program = f"import sys, atexit\natexit.register(lambda: print('\\n@' + ' '.join({{m.split('.')[0] for m in sys.modules}})))\n{code}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("@")[2].split())


def test_importing_condgen_imports_no_torch():
    found = modules_after("import condgen; condgen.__version__; dir(condgen)")
    assert "condgen" in found and "torch" not in found and "numpy" not in found


def test_help_answers_without_torch():
    pytest.importorskip("condgen.cli", reason="the command line is not there yet")
    call = "sys.argv = ['condgen', '--help']\ntry: main()\nexcept SystemExit as e: assert not e.code"
    found = modules_after(f"from condgen.cli import main; {call}")
    assert "condgen" in found and found.isdisjoint({"torch", "numpy", *HEAVY})


def test_the_api_imports_nothing_heavy():
    pytest.importorskip("condgen.api", reason="the API is not there yet")
    assert modules_after("import condgen; condgen.load, condgen.Run, condgen.Model").isdisjoint(HEAVY)
