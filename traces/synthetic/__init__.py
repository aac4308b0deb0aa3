"""Routing traces from a seeded model with planted topics: reproducible cases of any size, and the null case.

The model is described in ``docs/synthetic.md``.
"""

from traces.synthetic.fitting import like as like
from traces.synthetic.generator import generate as generate
from traces.synthetic.parameters import Synthetic as Synthetic

__all__ = ["Synthetic", "generate", "like"]
