"""Words that parameters of reading take, where they are declared without what reads by them."""

from typing import Literal

__all__ = ["Beyond", "Phase"]

Beyond = Literal["refuse", "none"]
Phase = Literal["prefill", "decode"]
