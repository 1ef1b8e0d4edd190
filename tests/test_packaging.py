"""What is written twice agrees: versions, requirements and pins, and the README's names with the code's."""

import dataclasses
import importlib.util
import json
import re
import stat
import sys
import tomllib
import types
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
VERBS = {"train", "sample", "evaluate", "compare", "figure", "edit", "stylize", "translate", "describe", "data", "list", "doctor"}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def name_of(requirement: str) -> str:
    return plain(re.match(r"[\w.-]+", requirement).group())


def pins() -> dict[str, str]:
    rows = [r for r in (ROOT / "constraints.txt").read_text().splitlines() if r and not r.startswith("#")]
    return {plain(name): version for name, _, version in (r.partition("==") for r in rows)}


def needed(names: set[str]) -> set[str]:
    """These distributions and all that they need here, without extras."""
    found, todo = set(), set(names)
    while todo:
        name = todo.pop()
        found.add(name)
        rows = metadata.requires(name) or []
        wanted = {name_of(r) for r in rows if "extra ==" not in r}
        todo |= {n for n in wanted - found if has(n)}
    return found


def has(name: str) -> bool:
    try:
        return bool(metadata.version(name))
    except metadata.PackageNotFoundError:
        return False


def direct() -> set[str]:
    groups = PROJECT["dependency-groups"]
    return {name_of(r) for r in [*PROJECT["project"]["dependencies"], *groups["test"], *groups["lint"]]}


# --- versions and pins --------------------------------------------------------------------------------------------------------


def test_the_version_is_the_same_everywhere():
    version = PROJECT["project"]["version"]
    assert re.search(r"^version: (.+)$", (ROOT / "CITATION.cff").read_text(), re.M).group(1) == version
    released = re.findall(r"^## \[(\d[^\]]*)\] - (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert released[0][0] == version
    assert re.search(r"^date-released: (.+)$", (ROOT / "CITATION.cff").read_text(), re.M).group(1) == released[0][1]


def test_every_direct_dependency_has_a_lower_bound_and_no_upper_one():
    groups = PROJECT["dependency-groups"]
    rows = [*PROJECT["project"]["dependencies"], *groups["test"], *groups["lint"]]
    assert [r for r in rows if ">=" not in r] == []
    assert [r for r in rows if "<" in r or "==" in r or "~=" in r] == []


def test_compromised_releases_are_excluded():
    row = next(r for r in PROJECT["project"]["dependencies"] if name_of(r) == "lightning-fabric")
    assert "!=2.6.2" in row and "!=2.6.3" in row
    assert pins()["lightning-fabric"] not in {"2.6.2", "2.6.3"}


def test_everything_that_is_installed_is_pinned():
    assert needed(direct()) - set(pins()) == set()


def test_pins_are_exact_and_name_no_build_or_host():
    text = (ROOT / "constraints.txt").read_text()
    rows = [r for r in text.splitlines() if r and not r.startswith("#")]
    assert [r for r in rows if not re.fullmatch(r"[\w.-]+==\d[\w.]*", r)] == []
    assert pins()["torch"] == "2.13.0" and "://" not in text


def test_pins_satisfy_the_lower_bounds():
    for row in PROJECT["project"]["dependencies"]:
        least = re.search(r">=([\d.]+)", row).group(1)
        have = pins()[name_of(row)]
        assert [int(v) for v in re.findall(r"\d+", have)] >= [int(v) for v in re.findall(r"\d+", least)], row


def test_every_core_dependency_is_imported():
    """What nothing imports is not a dependency."""
    modules = {"pillow": "PIL", "scikit-learn": "sklearn", "lightning-fabric": "lightning_fabric", "huggingface-hub": "huggingface_hub"}
    source = "\n".join(p.read_text() for p in (ROOT / "src").rglob("*.py"))
    names = [modules.get(name_of(r), name_of(r)) for r in PROJECT["project"]["dependencies"]]
    assert [n for n in names if not re.search(rf"^\s*(import|from) {n}\b", source, re.M)] == []


def test_typing_marker_and_runner_are_there():
    assert (ROOT / "src" / "condgen" / "py.typed").exists()
    assert (ROOT / ".ci" / "run").stat().st_mode & stat.S_IXUSR


def test_no_file_names_a_host_of_packages_or_an_absolute_path():
    files = [ROOT / "Makefile", ROOT / "pyproject.toml", ROOT / "constraints.txt", ROOT / ".ci" / "run", *PAGES]
    files += [p for folder in ("src", "benchmarks") for p in (ROOT / folder).rglob("*.py")]
    told = re.compile(r"index-url|find-links|pypi\.org|download\.pytorch\.org/whl|/work/|/home/|/root/")
    assert {p.name: told.search(p.read_text()).group() for p in files if p.exists() and told.search(p.read_text())} == {}


# --- the pages ----------------------------------------------------------------------------------------------------------------


def test_links_between_pages_lead_somewhere():
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            if not target.startswith("http") and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []


def commands(text: str) -> list[list[str]]:
    """The words of every `condgen ...` line within a fenced shell block."""
    blocks = re.findall(r"```(?:sh|bash|console)\n(.*?)```", text, re.S)
    lines = [line.partition("#")[0].split() for block in blocks for line in block.splitlines()]
    return [line[1:] for line in lines if line and line[0].endswith("condgen")]


def test_commands_of_the_pages_are_verbs_of_the_command_line():
    used = {words[0] for page in PAGES for words in commands(page.read_text())}
    assert used and used <= VERBS


def test_presets_of_the_pages_exist():
    models = pytest.importorskip("condgen.models")
    presets = models.presets()
    named = {w for page in PAGES for w in re.findall(r"\b(?:ae|vae|cvae|gan|cgan)-(?:digits|mnist|mixture2d)[\w-]*", page.read_text())}
    assert named and named <= set(presets), named - set(presets)


def test_the_table_of_models_names_every_model():
    models = pytest.importorskip("condgen.models")
    rows = re.findall(r"^\| `(\w+)` \|", (ROOT / "README.md").read_text(), re.M)
    assert sorted(rows) == sorted(models.names())


def snippets(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.S)


@pytest.mark.parametrize("page", [p for p in PAGES if snippets(p)], ids=lambda p: p.name)
def test_python_of_a_page_runs(page, tmp_path, monkeypatch):
    """All of a page's code, one block after the other, in an empty folder; trainings are cut short."""
    api = pytest.importorskip("condgen.api")
    short = {name: dataclasses.replace(run, steps=min(run.steps, 12), save_every=0, sample_every=0) for name, run in api.presets().items()}
    monkeypatch.setattr(api, "presets", lambda: short)
    monkeypatch.chdir(tmp_path)
    names = {"__name__": f"page_{page.stem}"}
    # Dataclasses look their module up by name.
    monkeypatch.setitem(sys.modules, names["__name__"], types.ModuleType(names["__name__"]))
    for code in snippets(page):
        exec(compile(code, page.name, "exec"), names)


# --- results ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table():
    spec = importlib.util.spec_from_file_location("results_table", ROOT / "benchmarks" / "results_table.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RESULT = {
    "preset": "cgan-x",
    "metrics": {
        "parzen": {"value": 130.25, "reported": [132, 1.8], "ceiling": 244.7, "control": None, "n": 10000, "provenance": "a | b"},
        "class_consistency": {"value": 0.98765, "reported": None, "ceiling": 0.99, "control": 0.1, "n": 2000, "provenance": "judge"},
    },
    "seconds": 12.3,
    "machine": "a CPU",
    "versions": {"torch": "2.13.0"},
    "seed": 0,
}


def test_a_result_becomes_a_table(table):
    written = table.page([RESULT])
    assert "## cgan-x" in written
    assert "| `parzen` | 130.2 | 132 ± 1.8 | 244.7 |  | 10000 | a \\| b |" in written
    assert "| `class_consistency` | 0.9877 |  | 0.99 | 0.1 | 2000 | judge |" in written
    assert "seed 0; evaluated in 12 s; on a CPU; with torch 2.13.0." in written


def test_check_sees_a_page_that_is_out_of_date(table, tmp_path):
    (tmp_path / "cgan-x.json").write_text(json.dumps(RESULT))
    (tmp_path / "train_step.json").write_text('{"ratios": {}}')
    page = tmp_path / "results.md"
    options = ["--results", str(tmp_path), "--page", str(page)]
    assert table.main([*options, "--check"]) == 1
    assert table.main(options) == 0 and table.main([*options, "--check"]) == 0
    (tmp_path / "cgan-x.json").write_text(json.dumps({**RESULT, "seed": 1}))
    assert table.main([*options, "--check"]) == 1


def test_a_result_that_is_no_json_is_named(table, tmp_path):
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ValueError, match=r"broken\.json"):
        table.read(tmp_path)


def test_the_page_of_results_is_up_to_date(table):
    assert table.main(["--check"]) == 0


def test_results_name_presets_and_metrics_that_exist(table):
    models = pytest.importorskip("condgen.models")
    protocols = pytest.importorskip("condgen.evaluation.protocols")
    for result in table.read(table.RESULTS):
        name = result["preset"]
        if name in models.presets():
            assert all(protocols.metric_of(m) for m in result["metrics"]), name
        else:  # nothing is trained: a benchmark of that name paints, and says itself how it measures
            assert (table.ROOT / "benchmarks" / f"{name.replace('-', '_')}.py").is_file(), name
            assert all(m["provenance"] for m in result["metrics"].values()), name
