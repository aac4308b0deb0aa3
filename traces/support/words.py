"""Words that parameters of reading and splitting take, where they are declared without what reads by them."""

from typing import Literal

__all__ = ["Beyond", "CutBy", "HoldOutBy", "Phase"]

Beyond = Literal["refuse", "none"]
CutBy = Literal["tokens", "source"]
HoldOutBy = Literal["sequence", "time", "source"]
Phase = Literal["prefill", "decode"]
