"""A run's folder: what was asked (run.json), measured (metrics.jsonl) and drawn (samples/), and where it stands (checkpoints/)."""

import contextlib
import errno
import fcntl
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from condgen.conditions import schema_to_json
from condgen.data.store import Dataset
from condgen.errors import BadInput
from condgen.model import Run
from condgen.training.checkpoint import Checkpoint, atomic, clean, newest
from condgen.training.schedules import STRETCHED

log = logging.getLogger("condgen")
FREE = ("data", "steps", "save_every", "sample_every", "log_every", "metrics", "reported", "source", "name")
"""Fields of a run that may change between a stop and its resume; any other change would be a different run.
The data's name is free because its content decides."""


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

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """While this lasts no other training writes here; the system lets go when the process ends, however it ends.

        Raises:
            BadInput: where another holds it, or the folder cannot be made.
        """
        with self.writing():
            self.root.mkdir(parents=True, exist_ok=True)
            handle = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._lock(handle)
            yield
        finally:
            os.close(handle)

    def _lock(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                remedy = "wait for it, stop it, or train into another folder (--out)"
                raise BadInput(f"another training is writing to {self.root}: {remedy}") from None
            log.debug("%s cannot be locked: %s", self.root, error)  # some network disks have no locks

    def open(self, writer: bool) -> Checkpoint | None:
        """The checkpoint to go on from, or None for a new run. Only one process is the `writer`.

        Raises:
            BadInput: where the folder holds a different run, naming each difference.
        """
        found = newest(self.checkpoints)
        if found:
            self._refuse_changes(found)
        if found and writer:
            self._warn_of_length(found)
        if writer:
            with self.writing():
                clean(self.checkpoints)
                for draft in (*self.root.glob(".run.json.*"), *self.root.glob(".metrics.jsonl.*")):
                    draft.unlink(missing_ok=True)
                with atomic(self.root / "run.json") as draft:
                    draft.write_text(json.dumps(self.identity, indent=1))
            self.cut_metrics(found.state["step"] if found else 0)
        return found

    def _refuse_changes(self, found: Checkpoint) -> None:
        try:
            old, data, schema = (found.state[k] for k in ("run", "data", "schema"))
        except KeyError as error:
            missing = f"{found.folder} does not say which run it belongs to ({error} is missing)"
            raise BadInput(f"{missing}; train into another folder (--out)") from None
        new = self.identity["run"]
        changes = [f"{k} was {old.get(k)!r}, is {new[k]!r}" for k in new if k not in FREE and old.get(k) != new[k]]
        if schema != self.identity["schema"]:
            changes.append(f"the schema was {_short(schema)}, is {_short(self.identity['schema'])}")
        if data != self.identity["data"]:
            changes.append(f"the data set was {old.get('data')!r} ({data[:8]}), is {new['data']!r} ({self.identity['data'][:8]})")
        if changes:
            remedy = "Train into another folder (--out), or undo the change."
            raise BadInput(f"{self.root} holds a different run: {'; '.join(changes)}. {remedy}")

    def _warn_of_length(self, found: Checkpoint) -> None:
        """Says that a schedule was laid out for another number of steps: allowed, but no longer reproducible in one go."""
        was, now = found.state["run"].get("steps"), self.run.steps
        moved = sorted({o.schedule for o in self.run.optimizers.values()} & {*STRETCHED})
        if was != now and moved:
            log.warning(
                "steps was %s, is %d: the %s schedule of the learning rate moves with the length of the run, and its first %d steps were "
                "taken for the old one; the result is not that of a run of %d steps from its start",
                *(was, now, " and ".join(moved), found.state["step"], now),
            )

    def cut_metrics(self, step: int) -> None:
        """Forget what was measured after this step: it will be measured again."""
        file = self.root / "metrics.jsonl"
        if file.exists():
            with self.writing(), atomic(file) as draft:
                kept = [line for line in file.read_text(errors="replace").splitlines() if _step(line) <= step]
                draft.write_text("".join(line + "\n" for line in kept))

    def measure(self, row: dict[str, Any]) -> None:
        """Append one object to metrics.jsonl."""
        with self.writing(), (self.root / "metrics.jsonl").open("a") as f:
            f.write(json.dumps(row) + "\n")

    def samples(self, step: int) -> Path:
        (self.root / "samples").mkdir(exist_ok=True)
        return self.root / "samples" / f"step-{step:06d}.png"

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Raises BadInput where the system refuses to write: a full disk, a folder that may not be changed."""
        try:
            yield
        except OSError as error:
            raise BadInput(f"{self.root} cannot be written ({error}); its checkpoints are untouched") from error


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):  # a line that was cut off by a kill
        return float("inf")


def _short(schema: dict[str, Any]) -> str:
    return ", ".join(f"{k}: {' '.join(str(v) for v in c.values())}" for k, c in schema.items()) or "empty"
