"""The command line ``moe-placement``. Commands import what they need when they run, so that ``--help`` is instant."""

import sys

try:
    from api.cli.entry import app as app
    from api.cli.entry import main as main
except KeyboardInterrupt:  # Ctrl-C while the command starts
    sys.stderr.write("note: Stopped.\n")
    sys.exit(130)  # INTERRUPTED of the console, which may not have been imported yet

__all__ = ["app", "main"]
