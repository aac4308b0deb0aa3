"""Step 1 of 4: what tokens did. Routing traces in, mergeable statistics out.

Subpackages, loaded on first use: `traces.synthetic` (`generate`, `like`), `traces.statistics`, and `traces.capture`
(`record`).

Letters used throughout: L MoE layers, E logical experts per layer, K experts per token (top-k), T tokens.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from traces.batch import Batch as Batch
from traces.counts import LoadCounts as LoadCounts
from traces.formats import load as load
from traces.formats.writers import save as save
from traces.model.layout import ModelLayout as ModelLayout
from traces.profile.profile import Profile as Profile
from traces.profile.profile import ProfileSource as ProfileSource
from traces.profile.sample import TokenSample as TokenSample
from traces.profile.shards import profile_shards as profile_shards
from traces.provenance import Provenance as Provenance
from traces.support.errors import InputError as InputError
from traces.support.errors import Violation as Violation
from traces.support.errors import Violations as Violations
from traces.trace import Trace as Trace

if TYPE_CHECKING:
    from traces import capture as capture
    from traces import statistics as statistics
    from traces import synthetic as synthetic

__all__ = [
    "Batch",
    "InputError",
    "LoadCounts",
    "ModelLayout",
    "Profile",
    "ProfileSource",
    "Provenance",
    "TokenSample",
    "Trace",
    "Violation",
    "Violations",
    "capture",
    "load",
    "profile_shards",
    "save",
    "statistics",
    "synthetic",
]


def __getattr__(name: str) -> Any:
    """Load a subpackage when it is first asked for: some import SciPy."""
    if name in ("capture", "statistics", "synthetic"):
        return import_module(f"traces.{name}")
    raise AttributeError(f"module 'traces' has no attribute {name!r}")
