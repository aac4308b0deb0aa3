"""Traces from models that run in this process: hooks on the routers record what every token chose.

`record` needs no library of its own: PyTorch is imported where a model is given, so it is installed already. The extra
`capture` installs PyTorch and transformers.
"""

from traces.capture.recording import Recording as Recording
from traces.capture.session import record as record

__all__ = ["Recording", "record"]
