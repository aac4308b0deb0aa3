"""The entry point of the command line: output that can't be written, and Ctrl-C before there is a command."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAIN = "from moe_placement import main; main()"
# Ctrl-C while the named module is imported.
INTERRUPTED = """
import sys

class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == "{name}":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupt())
from moe_placement import main
main()
"""


def run(*command: str, stdout: str = os.devnull) -> subprocess.CompletedProcess[str]:
    """Run Python in a process of its own, its output buffered unless told otherwise."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with Path(stdout).open("w") as out:
        return subprocess.run(
            [sys.executable, *command],
            stdout=out,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
            check=False,
        )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.parametrize("buffering", [(), ("-u",)], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("arguments", ["solvers", "topologies", "topologies --json", "--version", "--help"])
def test_output_that_can_not_be_written_is_one_line_on_stderr(arguments: str, buffering: tuple[str, ...]) -> None:
    """A full disk is no fault of the program: no traceback, and nothing from the interpreter on its way out."""
    done = run(*buffering, "-c", MAIN, *arguments.split(), stdout="/dev/full")
    assert done.stderr == "error: Can't write the output: No space left on device.\n"
    assert done.returncode == 1


def test_a_reader_that_has_gone_is_not_told(tmp_path: Path) -> None:
    """As in `moe-placement solvers | head -1`: nothing on stderr, whatever is left in the buffer."""
    line = f"'{sys.executable}' -c '{MAIN}' solvers 2>'{tmp_path / 'stderr'}' | head -1"
    done = subprocess.run(line, shell=True, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout == "auto\n"
    assert (tmp_path / "stderr").read_text() == ""


@pytest.mark.parametrize("name", ["typer", "api.cli.entry", "placement", "placement.topology"])
def test_ctrl_c_while_the_command_starts(name: str) -> None:
    """Before the commands are there, or while one imports what it needs: a note, no traceback."""
    done = run("-c", INTERRUPTED.format(name=name), "topologies")
    assert done.stderr == "note: Stopped.\n"
    assert done.returncode == 130
