"""Residency: which experts stay in a GPU's memory where not all of them fit, and what the others cost.

The order of the data is the order of the modules: `accesses` (what each step needs of each layer), `fitted` (what the
past says), `slots` (how many experts each layer keeps), `tiers` (where the others lie), `policies` (what stays, and
what is fetched ahead), `simulation` (hits and transfers), `clock` (time per step).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
