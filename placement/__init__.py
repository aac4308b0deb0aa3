"""Step 2 of 4: what a plan is, what it costs, and what it may do.

Letters: L layers, E logical experts per layer, K experts per token, G GPUs, N nodes, C slots per GPU, S = G * C slots.

Names are imported when they are first used, as `__init__.pyi` lists them, so that a module which needs little, such as
`placement.engines`, loads little.
"""

from moe_placement.distribution import require

require("traces")

import lazy_loader

from placement.plan.writing import Writer, set_writer

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def _export_plan() -> Writer:
    from placement.exports import export_plan

    return export_plan


set_writer(_export_plan)  # `Plan.export`: here, where both are known
