"""What a profile says about its trace, sampling noise taken out: load, affinity, whether there are enough tokens.

Definitions and how to read them: ``docs/statistics.md``.
"""

from traces.statistics.affinity import AffinityStrength as AffinityStrength
from traces.statistics.affinity import affinity_strength as affinity_strength
from traces.statistics.gain import Gain as Gain
from traces.statistics.gain import gain as gain
from traces.statistics.load import coactivation_share as coactivation_share
from traces.statistics.load import imbalance as imbalance
from traces.statistics.load import topk_share as topk_share
from traces.statistics.sufficiency import EnoughTokens as EnoughTokens
from traces.statistics.sufficiency import enough_tokens as enough_tokens
from traces.statistics.summary import summary as summary

__all__ = [
    "AffinityStrength",
    "EnoughTokens",
    "Gain",
    "affinity_strength",
    "coactivation_share",
    "enough_tokens",
    "gain",
    "imbalance",
    "summary",
    "topk_share",
]
