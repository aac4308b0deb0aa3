from . import plotting as plotting
from . import testing as testing
from .advising.advice import Advice as Advice
from .advising.advice import TwoPhases as TwoPhases
from .advising.advising import advise as advise
from .advising.both import advise_both as advise_both
from .advising.request import AdviceRequest as AdviceRequest
from .advising.verdict import advice_on as advice_on
from .failures.degraded import Degraded as Degraded
from .failures.degraded import Reload as Reload
from .failures.degraded import degraded as degraded
from .failures.schedule import FailureEvent as FailureEvent
from .failures.schedule import FailureState as FailureState
from .failures.schedule import simulate_failures as simulate_failures
from .fronts.front import front as front
from .fronts.points import Against as Against
from .fronts.points import Front as Front
from .fronts.points import FrontPoint as FrontPoint
from .grouping.grouping import RequestGroups as RequestGroups
from .grouping.grouping import group_requests as group_requests
from .grouping.request import GroupRequest as GroupRequest
from .judging.comparing import Comparison as Comparison
from .methods.annealing.solver import Annealing as Annealing
from .methods.assignment.solver import Assignment as Assignment
from .methods.auto import Auto as Auto
from .methods.baselines import Contiguous as Contiguous
from .methods.baselines import Random as Random
from .methods.baselines import RoundRobin as RoundRobin
from .methods.chain_dp.solver import ChainDp as ChainDp
from .methods.cp_sat.solver import CpSat as CpSat
from .methods.eplb.solver import Eplb as Eplb
from .methods.exflow.solver import Exflow as Exflow
from .methods.grace.solver import Grace as Grace
from .methods.lazarus import Lazarus as Lazarus
from .methods.load_balance.solver import LoadBalance as LoadBalance
from .methods.load_search.solver import LoadSearch as LoadSearch
from .methods.moetuner.solver import MoeTuner as MoeTuner
from .methods.mtkahypar import MtKaHyPar as MtKaHyPar
from .methods.registry import Solver as Solver
from .methods.registry import names as names
from .methods.registry import parameters_of as parameters_of
from .methods.registry import solver_class as solver_class
from .methods.registry import solver_from as solver_from
from .methods.set_partition.solver import SetPartition as SetPartition
from .methods.topology_load import TopologyLoad as TopologyLoad
from .mixtures.mixture import Mixture as Mixture
from .mixtures.mixture import mixture as mixture
from .mixtures.request import MixtureRequest as MixtureRequest
from .plans import NoPlanError as NoPlanError
from .plans import make_plan as make_plan
from .policies.request import PolicyRequest as PolicyRequest
from .policies.results import PolicyRun as PolicyRun
from .policies.results import Simulation as Simulation
from .policies.simulating import simulate as simulate
from .replanning.replanning import replan as replan
from .replanning.request import ReplanRequest as ReplanRequest
from .replanning.result import Replan as Replan
from .requests.request import FrontRequest as FrontRequest
from .requests.request import Request as Request
from .requests.served import Timed as Timed
from .residency.outcome import PolicyFigures as PolicyFigures
from .residency.outcome import Residency as Residency
from .residency.request import ResidencyRequest as ResidencyRequest
from .residency.running import simulate_residency as simulate_residency
from .searching.events import Event as Event
from .searching.limits import Limits as Limits
from .searching.search import Search as Search
from .searching.solution import Solution as Solution
from .searching.solution import Step as Step
from .solving.solving import check_start as check_start
from .solving.solving import solve as solve
from .study import Study as Study

__all__ = [
    "Advice",
    "AdviceRequest",
    "Against",
    "Annealing",
    "Assignment",
    "Auto",
    "ChainDp",
    "Comparison",
    "Contiguous",
    "CpSat",
    "Degraded",
    "Eplb",
    "Event",
    "Exflow",
    "FailureEvent",
    "FailureState",
    "Front",
    "FrontPoint",
    "FrontRequest",
    "Grace",
    "GroupRequest",
    "Lazarus",
    "Limits",
    "LoadBalance",
    "LoadSearch",
    "Mixture",
    "MixtureRequest",
    "MoeTuner",
    "MtKaHyPar",
    "NoPlanError",
    "PolicyFigures",
    "PolicyRequest",
    "PolicyRun",
    "Random",
    "Reload",
    "Replan",
    "ReplanRequest",
    "Request",
    "RequestGroups",
    "Residency",
    "ResidencyRequest",
    "RoundRobin",
    "Search",
    "SetPartition",
    "Simulation",
    "Solution",
    "Solver",
    "Step",
    "Study",
    "Timed",
    "TopologyLoad",
    "TwoPhases",
    "advice_on",
    "advise",
    "advise_both",
    "check_start",
    "degraded",
    "front",
    "group_requests",
    "make_plan",
    "mixture",
    "names",
    "parameters_of",
    "plotting",
    "replan",
    "simulate",
    "simulate_failures",
    "simulate_residency",
    "solve",
    "solver_class",
    "solver_from",
    "testing",
]
