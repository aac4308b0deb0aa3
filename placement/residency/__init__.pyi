from .accesses import Accesses as Accesses
from .accesses import Tokens as Tokens
from .accesses import read_tokens as read_tokens
from .clock import Clock as Clock
from .clock import StepTimes as StepTimes
from .clock import compute_times as compute_times
from .fitted import Fitted as Fitted
from .policies import POLICIES as POLICIES
from .policies import Policy as Policy
from .simulation import Simulated as Simulated
from .simulation import simulate as simulate
from .slots import Slots as Slots
from .slots import hottest as hottest
from .tiers import BANDWIDTHS as BANDWIDTHS
from .tiers import Tier as Tier
from .tiers import tier_of_experts as tier_of_experts

__all__ = [
    "BANDWIDTHS",
    "POLICIES",
    "Accesses",
    "Clock",
    "Fitted",
    "Policy",
    "Simulated",
    "Slots",
    "StepTimes",
    "Tier",
    "Tokens",
    "compute_times",
    "hottest",
    "read_tokens",
    "simulate",
    "tier_of_experts",
]
