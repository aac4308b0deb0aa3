"""Step 1 of 4: what tokens did. Routing traces in, mergeable statistics out.

Letters used throughout: L MoE layers, E logical experts per layer, K experts per token (top-k), T tokens.
"""

from traces.errors import InputError as InputError
from traces.errors import Violation as Violation
from traces.errors import Violations as Violations
from traces.profile import Profile as Profile
from traces.profile import ProfileSource as ProfileSource
from traces.readers import load as load
from traces.sample import TokenSample as TokenSample
from traces.trace import Batch as Batch
from traces.trace import LoadCounts as LoadCounts
from traces.trace import Provenance as Provenance
from traces.trace import Trace as Trace
from traces.writers import save as save

__all__ = [
    "Batch",
    "InputError",
    "LoadCounts",
    "Profile",
    "ProfileSource",
    "Provenance",
    "TokenSample",
    "Trace",
    "Violation",
    "Violations",
    "load",
    "save",
]
