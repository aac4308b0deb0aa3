"""The distribution: its version, and its console script.

The four packages import `moe_placement.distribution` alone, which imports nothing of ours; this starts `api`.
"""

from __future__ import annotations

import sys
from typing import Any

from moe_placement.distribution import PACKAGES, PackageError, require, version

__all__ = ["PACKAGES", "PackageError", "__version__", "main", "require"]


def __getattr__(name: str) -> Any:
    """Look the version up when it is first asked for."""
    if name == "__version__":
        return version()
    raise AttributeError(f"module 'moe_placement' has no attribute {name!r}")


def main() -> None:
    """Entry point of the console script ``moe-placement``."""
    try:
        require(*PACKAGES)
        from api.cli import main as run
    except PackageError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(1)  # BAD_INPUT of the console, which can't be imported
    except KeyboardInterrupt:  # Ctrl-C while the command starts
        sys.stderr.write("note: Stopped.\n")
        sys.exit(130)  # INTERRUPTED of the console, which may not have been imported yet
    run()
