"""Step 1 of 4: what tokens did. Routing traces in, mergeable statistics out.

Subpackages: `traces.synthetic` (`generate`, `like`), `traces.statistics`, and `traces.capture` (`record`). Every name
is imported when it is first used, so that errors, say, cost no NumPy; `__init__.pyi` lists where each comes from.

Letters used throughout: L MoE layers, E logical experts per layer, K experts per token (top-k), T tokens.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
