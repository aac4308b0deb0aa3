"""The entry point of the command line: output that can't be written, and Ctrl-C before there is a command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAIN = "from api.cli import main; main()"
INTERRUPT_WHILE_IMPORTING = """
import sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "{name}":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
from api.cli import main
main()
"""


def run(code: str, *arguments: str, stdout: str | int = subprocess.PIPE, unbuffered: bool = False) -> tuple[int, str]:
    """Return exit code and stderr of the command line, in a process of its own."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    command = [sys.executable, *(["-u"] if unbuffered else []), "-c", code, *arguments]
    with open(stdout, "w") if isinstance(stdout, str) else open(os.devnull, "w") as out:  # noqa: PTH123
        done = subprocess.run(
            command, stdout=out, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False, env=environment
        )
    return done.returncode, done.stderr
