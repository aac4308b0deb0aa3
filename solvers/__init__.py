"""Step 3 of 4: how to find a good plan, and how good it is.

Names are imported when they are first used, as `__init__.pyi` lists them, so that a module which needs little, such as
`solvers.requests.request`, loads little.
"""

from moe_placement.distribution import require

require("traces", "placement")

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
