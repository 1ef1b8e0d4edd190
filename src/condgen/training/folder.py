"""A run's folder: what was asked (run.json), what was measured (metrics.jsonl), what was drawn (samples/), where it stands (checkpoints/)."""

import json
import logging
from pathlib import Path
from typing import Any

from condgen.conditions import schema_to_json
from condgen.data.store import Dataset
from condgen.errors import BadInput
from condgen.model import Run
from condgen.training.checkpoint import Checkpoint, atomic, newest

log = logging.getLogger("condgen")
FREE = ("steps", "save_every", "sample_every", "log_every", "metrics", "reported", "source", "name")
"""Fields of a run that may change between a stop and its resume; any other change would be a different run."""


class RunFolder:
    """Args:
    root: the folder; made if absent.
    run: with its precision resolved.
    data: what is trained on.
    """

    def __init__(self, root: Path, run: Run, data: Dataset):
        self.root, self.run = root, run
        self.checkpoints = root / "checkpoints"
        self.identity = {"run": json.loads(json.dumps(run.to_json())), "data": data.fingerprint, "schema": schema_to_json(data.schema)}

    def open(self, writer: bool) -> Checkpoint | None:
        """The checkpoint to go on from, or None for a new run. Only one process is the `writer`.

        Raises:
            BadInput: where the folder holds a different run, naming each difference.
        """
        kept = self.root / "run.json"
        if kept.exists():
            self._refuse_changes(self._read(kept))
        found = newest(self.checkpoints) if self.checkpoints.exists() else None
        if writer:
            with atomic(kept) as draft:
                draft.write_text(json.dumps(self.identity, indent=1))
            self._cut_metrics(found.state["step"] if found else 0)
        return found

    def _read(self, file: Path) -> dict[str, Any]:
        try:
            return json.loads(file.read_text())
        except ValueError:
            raise BadInput(f"{file} is not readable JSON; mend it, or train into another folder") from None

    def _refuse_changes(self, before: dict[str, Any]) -> None:
        old, new = before["run"], self.identity["run"]
        changes = [f"{k} was {old.get(k)!r}, is {new[k]!r}" for k in new if k not in FREE and old.get(k) != new[k]]
        if before["schema"] != self.identity["schema"]:
            changes.append(f"the schema was {_short(before['schema'])}, is {_short(self.identity['schema'])}")
        if before["data"] != self.identity["data"]:
            changes.append(f"the data set {new['data']!r} has changed (fingerprint {before['data'][:8]} is now {self.identity['data'][:8]})")
        if changes:
            raise BadInput(f"{self.root} holds a different run: {'; '.join(changes)}. Train into another folder (--out), or undo the change.")

    def _cut_metrics(self, step: int) -> None:
        """Forget what was measured after the checkpoint: it will be measured again."""
        file = self.root / "metrics.jsonl"
        if file.exists():
            kept = [line for line in file.read_text().splitlines() if _step(line) <= step]
            with atomic(file) as draft:
                draft.write_text("".join(line + "\n" for line in kept))

    def measure(self, row: dict[str, Any]) -> None:
        """Append one object to metrics.jsonl."""
        with (self.root / "metrics.jsonl").open("a") as f:
            f.write(json.dumps(row) + "\n")

    def samples(self, step: int) -> Path:
        (self.root / "samples").mkdir(exist_ok=True)
        return self.root / "samples" / f"step-{step:06d}.png"


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):  # a line that was cut off by a kill
        return float("inf")


def _short(schema: dict[str, Any]) -> str:
    return ", ".join(f"{k}: {v['kind']}" for k, v in schema.items()) or "empty"
