"""Settings of all tests."""

import functools
import gc
from pathlib import Path

import pytest
import typer.testing
from hypothesis import settings

ROOT = Path(__file__).parent
# Workers take a file at a time, in this order and then by name, so that none is left with a long one at the end.
# The first one has most loops compiled, which takes long on a fresh clone; what needs few of them stands beside it.
FIRST = (
    "contracts/test_solvers_contract.py",
    "traces",
    "contracts/test_doors.py",
    "api/test_page_browser.py",
    "api/test_dask.py",
    "api/test_crash.py",
    "api/test_fuzz.py",
    "api/test_rest_server.py",
    "api/test_disk.py",
    "solvers/test_set_partition.py",
    "test_architecture.py",
    "test_examples.py",
)

# The first call of a compiled loop takes seconds, and continuous integration machines stall: no deadlines.
settings.register_profile("moe-placement", deadline=None)
settings.load_profile("moe-placement")


# Every call of `CliRunner.invoke` makes all commands of the program anew, which takes longer than most of them run.
typer.testing._get_command = functools.cache(typer.testing._get_command)  # type: ignore[attr-defined]


def pytest_configure(config: pytest.Config) -> None:
    """Have each worker collect the files from another one on: what is compiled of a file, the next of them finds."""
    worker = getattr(config, "workerinput", None)
    if worker is not None and config.args == config.getini("testpaths"):
        files = sorted(map(str, ROOT.rglob("test_*.py")))
        first = int(worker["workerid"].removeprefix("gw")) * len(files) // worker["workercount"]
        config.args = files[first:] + files[:first]


@functools.cache
def place(path: Path) -> int:
    """Return when the tests of a file run."""
    names = (path.relative_to(ROOT), *path.relative_to(ROOT).parents)
    return next((rank for rank, first in enumerate(FIRST) if Path(first) in names), len(FIRST))


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files that take long first; all workers need one order."""
    items.sort(key=lambda item: (place(item.path), item.path))


def pytest_collection_finish() -> None:
    """Leave modules and collected tests to themselves: garbage is looked for among what tests make."""
    gc.collect()
    gc.freeze()


def pytest_make_parametrize_id(config: pytest.Config, val: object, argname: str) -> str | None:
    """Name bytes by their parameter: what they hold may differ between processes (a time of packing, say)."""
    return argname if isinstance(val, bytes) else None
