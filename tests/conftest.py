"""What every test gets: one thread, a cache of its own, and shapes that are checked where objectives and networks are called."""

import json
import logging
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from jaxtyping import install_import_hook

# Before anything imports them: from here on a tensor of a wrong shape raises at the border of these two rooms.
_early = sorted(m for m in sys.modules if m.startswith(("condgen.objectives.", "condgen.networks.")))
assert not _early, f"imported before their shapes could be checked: {', '.join(_early)}"
install_import_hook(["condgen.objectives", "condgen.networks"], "beartype.beartype")

# Tests are many and small, and the machine's cores are shared: more threads wait for each other longer than they compute.
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Prepared data and judges go to a folder of this session: no test reads what an earlier one left in the home folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CONDGEN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def own_logging() -> Iterator[None]:
    """The command line sends logging to what standard error is then: gone, once the test is."""
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, where `runs/` and the like may be written."""
    folder = tmp_path / "workplace"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


class Answer(NamedTuple):
    """What a command gave back."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> dict:
        return json.loads(self.out)


@pytest.fixture
def condgen(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Answer]]:
    """The command line in this process: `condgen("list", "models")`; logging is put back as it was."""
    from condgen.cli import main

    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    levels = {name: logger.level for name, logger in logging.Logger.manager.loggerDict.items() if isinstance(logger, logging.Logger)}

    def call(*words: object) -> Answer:
        capsys.readouterr()
        code = main([str(w) for w in words])
        return Answer(code, *capsys.readouterr())

    yield call
    root.handlers[:], root.level = handlers, level
    for name, logger in logging.Logger.manager.loggerDict.items():
        if isinstance(logger, logging.Logger):
            logger.setLevel(levels.get(name, logging.NOTSET))
