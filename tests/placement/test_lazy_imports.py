"""The package loads what is used, when it is used."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import placement

ROOT = Path(__file__).resolve().parents[2]


def loaded_by(code: str) -> set[str]:
    """Return which heavy libraries a fresh interpreter has loaded after some code."""
    heavy = "numpy scipy numba pandas"
    code = f"import sys; {code}; print(*[name for name in '{heavy}'.split() if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_package_alone_loads_nothing_heavy() -> None:
    """Names are imported when they are first used."""
    assert loaded_by("import placement") == set()
    assert loaded_by("import placement.engines, placement.problem.objective, placement.problem.constraints") == set()
    assert "numba" in loaded_by("import placement; placement.score")


def test_data_frames_are_loaded_with_the_first_one() -> None:
    """Pandas is an extra, so nothing else needs it."""
    assert "pandas" not in loaded_by("import placement; placement.Plan, placement.Evaluation, placement.score")


def test_the_stub_lists_every_name() -> None:
    """What the stub imports is what the package offers, and each name comes from where the stub says."""
    tree = ast.parse((ROOT / "placement" / "__init__.pyi").read_text(encoding="utf-8"))
    origin = {name.name: node.module for node in tree.body if isinstance(node, ast.ImportFrom) for name in node.names}
    assert sorted(origin) == sorted(placement.__all__)
    for name, module in origin.items():
        value = getattr(placement, name)
        assert getattr(value, "__module__", f"placement.{module}") == f"placement.{module}"
