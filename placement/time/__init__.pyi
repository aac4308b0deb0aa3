from .catalogue import Coefficients as Coefficients
from .catalogue import coefficients_of as coefficients_of
from .catalogue import exchange_for as exchange_for
from .catalogue import kernel_for as kernel_for
from .catalogue import read_coefficients as read_coefficients
from .exchange import Curve as Curve
from .exchange import Exchange as Exchange
from .experts import ExpertKernel as ExpertKernel
from .experts import FittedError as FittedError
from .gpus import GPUS as GPUS
from .gpus import Gpu as Gpu
from .links import Links as Links
from .machine import Machine as Machine
from .model import TimeModel as TimeModel
from .passes import LayerTimes as LayerTimes
from .passes import PassLoad as PassLoad
from .passes import PassReplay as PassReplay
from .step import StepTime as StepTime
from .step import step_time as step_time

__all__ = [
    "GPUS",
    "Coefficients",
    "Curve",
    "Exchange",
    "ExpertKernel",
    "FittedError",
    "Gpu",
    "LayerTimes",
    "Links",
    "Machine",
    "PassLoad",
    "PassReplay",
    "StepTime",
    "TimeModel",
    "coefficients_of",
    "exchange_for",
    "kernel_for",
    "read_coefficients",
    "step_time",
]
