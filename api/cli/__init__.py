"""The command line ``moe-placement``. Commands import what they need when they run, so that ``--help`` is instant."""

from api.cli.entry import app as app
from api.cli.entry import main as main

__all__ = ["app", "main"]
