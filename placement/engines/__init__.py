"""Serving engines: what each does with a plan, declared once, with its place in the engine's code.

Importing this package loads nothing but the standard library, so that help texts can be made from it.
"""

from placement.engines.engine import Engine as Engine
from placement.engines.engine import EngineChoice as EngineChoice
from placement.engines.fit import check_travel as check_travel
from placement.engines.fit import engine_of_export as engine_of_export
from placement.engines.layout import default_slots as default_slots
from placement.engines.registry import ENGINES as ENGINES
from placement.engines.registry import engine_of as engine_of
from placement.engines.registry import engine_of_format as engine_of_format
from placement.engines.travel import travel_of as travel_of

__all__ = [
    "ENGINES",
    "Engine",
    "EngineChoice",
    "check_travel",
    "default_slots",
    "engine_of",
    "engine_of_export",
    "engine_of_format",
    "travel_of",
]
