"""What a service loads to start: each of its processes pays for it, and so does each command."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def test_service_and_searches_start_without_scipys_libraries() -> None:
    """They take as long to load as a third of all else, and few requests need them."""
    code = "import sys, api.service.server, api.resources.worker; print(*[name for name in sys.modules if '.' in name])"
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "solvers.study" in loaded
    assert not loaded & {"scipy.optimize", "scipy.special", "scipy.sparse", "scipy.linalg", "scipy.stats"}
