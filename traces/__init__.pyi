from . import capture as capture
from . import statistics as statistics
from . import synthetic as synthetic
from .batch import Batch as Batch
from .counts import CountsDump as CountsDump
from .counts import LoadCounts as LoadCounts
from .doctor.checking import check as check
from .doctor.diagnosis import Diagnosis as Diagnosis
from .doctor.diagnosis import Finding as Finding
from .formats import load as load
from .formats.writers import save as save
from .formats.writers.counts import save_counts as save_counts
from .model.layout import ModelLayout as ModelLayout
from .profile.profile import Profile as Profile
from .profile.sample import TokenSample as TokenSample
from .profile.shards import profile_shards as profile_shards
from .profile.sources import ProfileSource as ProfileSource
from .provenance import Provenance as Provenance
from .series.drift import Drift as Drift
from .series.drift import drift_between as drift_between
from .series.each import series_of_each as series_of_each
from .series.forecasts import ForecastScore as ForecastScore
from .series.forecasts import forecast_counts as forecast_counts
from .series.forecasts import score_forecasts as score_forecasts
from .series.series import Series as Series
from .series.window import Window as Window
from .support.errors import InputError as InputError
from .support.errors import Violation as Violation
from .support.errors import Violations as Violations
from .trace import Trace as Trace

__all__ = [
    "Batch",
    "CountsDump",
    "Diagnosis",
    "Drift",
    "Finding",
    "ForecastScore",
    "InputError",
    "LoadCounts",
    "ModelLayout",
    "Profile",
    "ProfileSource",
    "Provenance",
    "Series",
    "TokenSample",
    "Trace",
    "Violation",
    "Violations",
    "Window",
    "capture",
    "check",
    "drift_between",
    "forecast_counts",
    "load",
    "profile_shards",
    "save",
    "save_counts",
    "score_forecasts",
    "series_of_each",
    "statistics",
    "synthetic",
]
