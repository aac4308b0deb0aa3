"""What a service loads to start: each of its processes pays for it, and so does each command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

START = "import api.service.server, api.resources.worker"
PLAN = """
from importlib import import_module
from api.service.lifecycle import PRELOADED
for name in PRELOADED:
    import_module(name)
before = set(sys.modules)
api.resources.worker.warm_up()
"""


@pytest.fixture(scope="module")
def loaded() -> tuple[set[str], set[str]]:
    """Return the modules that a service starts with, and those that a first plan loads beyond what is preloaded."""
    code = f"import sys\n{START}\nprint(*sys.modules){PLAN}print(*(set(sys.modules) - before))"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    return set(first.split()), set(second.split())


def test_service_and_searches_start_without_scipys_libraries(loaded: tuple[set[str], set[str]]) -> None:
    """They take as long to load as a third of all else, and few requests need them."""
    assert "solvers.study" in loaded[0]
    assert not loaded[0] & {"scipy.optimize", "scipy.special", "scipy.sparse", "scipy.linalg", "scipy.stats"}


def test_a_first_plan_loads_no_library(loaded: tuple[set[str], set[str]]) -> None:
    """The process that workers are copies of has loaded SciPy's: each worker would take half a second for that."""
    assert not {name for name in loaded[1] if name.startswith("scipy.")}
