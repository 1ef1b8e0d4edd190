"""How far a long piece of work is, and its end before the end: a bar where a person watches, a line now and then where a file does."""

import logging
import signal
import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any

log = logging.getLogger("condgen")
LINES = 10
"""Told in all where nobody watches."""


class Progress:
    """A bar from `done` to `total`, on standard error.

        with Progress("photo.jpg", 200) as progress:
            progress.show(1, {"style": 0.9})

    Args:
        title: what is being done.
        total: steps.
        done: of them before this start.
    """

    def __init__(self, title: str, total: int, done: int = 0):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self.told = done
        self.total, self.watched = total, sys.stderr.isatty() and log.isEnabledFor(logging.INFO)
        columns = [BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[said]}"), TimeElapsedColumn(), TimeRemainingColumn()]
        self.bar = Bar(*columns, console=Console(stderr=True), disable=not self.watched)
        self.task = self.bar.add_task(title, total=total, completed=done, said="")
        log.info("%s", title)

    def __enter__(self) -> "Progress":
        self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.bar.stop()

    def show(self, step: int, numbers: Mapping[str, Any]) -> None:
        """Step `step` is done; numbers are told beside it."""
        said = " ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in numbers.items())
        self.bar.update(self.task, completed=step, said=said)
        if not self.watched and step != self.told and step % max(1, self.total // LINES) == 0:
            log.info("%d of %d: %s", step, self.total, said)
            self.told = step


class Stop:
    """Ctrl-C and SIGTERM end the loop after the step that is under way, so that what is saved is whole. A second one is obeyed at once."""

    number = 0

    @property
    def name(self) -> str | None:
        return signal.Signals(self.number).name if self.number else None

    def __enter__(self) -> "Stop":
        self.before = {s: signal.signal(s, self._asked) for s in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _asked(self, number: int, _: object) -> None:
        if self.number:
            raise KeyboardInterrupt
        self.number = number
