"""Milliseconds: what a forward pass takes on a machine, fitted to measurements.

The order of the data is the order of the modules: `gpus`, `machine` (what there is), `features`, `experts` (a rank's
kernels), `exchange` (the all-to-all), `catalogue` (coefficients that ship), `model` (a deployment), `passes` and `step`
(a plan on a trace). `calibration` makes the coefficients.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
