"""Models that requests name: a preset, and never a file of the machine that serves."""

from __future__ import annotations

from traces import InputError, Violations
from traces.model.presets import load_model, preset_names

__all__ = ["check_model_name"]


def check_model_name(name: str, found: Violations) -> None:
    """Add a violation for a name that is no preset."""
    if name in preset_names():
        return
    try:
        load_model("")
    except InputError as error:
        remedy = error.violations[0].remedy.replace("the path of a config.json, or ", "")
        found.add("unknown_model", "/model", f"There is no model {name!r:.80}.", remedy)
