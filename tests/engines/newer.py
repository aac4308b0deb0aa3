"""Say which engines have a newer release than the pinned one; asks the package index, through pip."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

PINS = Path(__file__).with_name("pins.toml")


def newest(package: str) -> str:
    """Return the newest release of a package, whatever Python it asks for."""
    command = [sys.executable, "-m", "pip", "index", "versions", package, "--disable-pip-version-check"]
    shown = subprocess.run(
        [*command, "--python-version", "3.13", "--ignore-requires-python"], check=True, capture_output=True, text=True
    ).stdout
    found = re.search(r"\(([^)\s]+)\)", shown)
    assert found, shown
    return found[1]


def main() -> int:
    """Print a line for each engine, and return 1 if there is a newer release."""
    content = tomllib.loads(PINS.read_text())
    pinned = {pin["package"]: pin["version"] for name, pin in content.items() if name != "environment"}
    pinned["transformers"] = content["environment"]["transformers"]
    found = {package: newest(package) for package in pinned}
    for package, version in pinned.items():
        same = "the newest" if found[package] == version else f"{found[package]} is there"
        print(f"{package} {version}: {same}")
    return int(found != pinned)


if __name__ == "__main__":
    sys.exit(main())
