"""docs/results.md from benchmarks/results/*.json: what was measured, beside what the paper reports, the ceiling and a control.

    python benchmarks/results_table.py            write the page
    python benchmarks/results_table.py --check    exit 1 where the page is not what the results say

One JSON a preset, as `condgen evaluate` writes it: {"preset", "metrics": {NAME: {"value", "reported", "ceiling", "control",
"n", "provenance"}}, "seconds", "machine", "versions", "seed"}. Files that hold no "preset" (timings) are left out.
"""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "results.md"

HEAD = """# Results

Written by `make results` from `benchmarks/results/*.json`; a test keeps the two together. Each number is from one run with the seed
given. *Ceiling* is the same measure on real test data in the samples' place, *control* the same measure where it must fail;
[evaluation](evaluation.md) says how both are made. An empty cell was not measured, or is not reported by the paper.
"""
COLUMNS = ("metric", "value", "reported", "ceiling", "control", "n", "provenance")


def page(results: Sequence[Mapping[str, Any]]) -> str:
    """The whole page, presets by name."""
    parts = [section(r) for r in sorted(results, key=lambda r: r["preset"])]
    return "\n".join([HEAD, *parts]) if parts else HEAD + "\nNothing has been measured yet.\n"


def section(result: Mapping[str, Any]) -> str:
    rows = [row(name, m) for name, m in sorted(result["metrics"].items())]
    lines = ["| " + " | ".join(COLUMNS) + " |", "|---|" + "---:|" * 5 + "---|", *("| " + " | ".join(r) + " |" for r in rows)]
    return f"## {result['preset']}\n\n" + "\n".join(lines) + f"\n\n{circumstances(result)}\n"


def row(name: str, m: Mapping[str, Any]) -> list[str]:
    return [f"`{name}`", *(number(m.get(c)) for c in COLUMNS[1:5]), str(m.get("n") or ""), cell(m.get("provenance") or "")]


def number(value: Any) -> str:
    """Four significant digits; (value, standard error) as `value ± error`; nothing where there is none.

    >>> number([132, 1.8]), number(0.98765), number(None), number(1234567.0)
    ('132 ± 1.8', '0.9877', '', '1,234,567')
    """
    if isinstance(value, list | tuple):
        return " ± ".join(number(v) for v in value if v is not None)
    if not isinstance(value, int | float):
        return cell("" if value is None else str(value))
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def cell(words: str) -> str:
    """Words that cannot leave their cell."""
    return " ".join(words.replace("|", "\\|").split())


def circumstances(result: Mapping[str, Any]) -> str:
    """Seed, time, machine and versions: those that the result names."""
    training = result.get("training") or {}
    known = training.keys() >= {"step", "seconds"}
    trained = f"for {training['step']:,} steps in {training['seconds']:,.0f} s" if known else ""
    said = {"trained": trained, "seed": result.get("seed"), "evaluated in": seconds(result.get("seconds"))}
    said["on"] = told(result.get("machine"))
    said["with"] = told(result.get("versions"))
    return cell("; ".join(f"{what} {value}" for what, value in said.items() if value not in (None, ""))) + "."


def seconds(value: Any) -> str:
    """One number, or one for each stage."""
    return told({k: f"{v:.0f} s" for k, v in value.items()}) if isinstance(value, Mapping) else "" if value is None else f"{value:.0f} s"


def told(value: Any) -> str:
    """A mapping as `name value, name value`; anything else as it is."""
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else str(value or "")


def read(folder: Path) -> list[dict[str, Any]]:
    """Every result below `folder`. Raises ValueError with the file's name where one cannot be read."""
    found = []
    for file in sorted(folder.glob("*.json")):
        try:
            data = json.loads(file.read_text())
        except ValueError as error:
            raise ValueError(f"{file.name}: {error}") from None
        if isinstance(data, dict) and "preset" in data:
            found.append(data)
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """0 where the page is written or up to date, 1 where `--check` finds that it is not."""
    parser = argparse.ArgumentParser(description="docs/results.md from benchmarks/results/*.json")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where the page is out of date")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--page", type=Path, default=PAGE)
    asked = parser.parse_args(argv)
    written = page(read(asked.results))
    if not asked.check:
        asked.page.write_text(written)
        return 0
    if asked.page.exists() and asked.page.read_text() == written:
        return 0
    print(f"{asked.page.name} is not what {asked.results.name}/ says: run `make results`", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
