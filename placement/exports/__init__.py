"""Placement files of the serving engines: written from a plan, checked, and read back as one.

One module per engine; `registry` lists their `Export` entries.
"""

from placement.exports.context import Context as Context
from placement.exports.export import Export as Export
from placement.exports.export import Exported as Exported
from placement.exports.files import check_suffix as check_suffix
from placement.exports.files import convert_placement as convert_placement
from placement.exports.files import export_named as export_named
from placement.exports.files import export_plan as export_plan
from placement.exports.files import load_placement as load_placement
from placement.exports.files import recognise as recognise
from placement.exports.files import recognised as recognised
from placement.exports.registry import EXPORTS as EXPORTS
from placement.exports.shared.document import Document as Document
from placement.exports.table import Rules as Rules

__all__ = [
    "EXPORTS",
    "Context",
    "Document",
    "Export",
    "Exported",
    "Rules",
    "check_suffix",
    "convert_placement",
    "export_named",
    "export_plan",
    "load_placement",
    "recognise",
    "recognised",
]
