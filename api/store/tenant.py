"""The store as one tenant sees it."""

from __future__ import annotations

from api.store.database import Database
from api.store.pages import Cursors
from api.store.plans import Plans
from api.store.series import SeriesStore
from api.store.topologies import Topologies
from api.store.traces import Traces, Uploads

__all__ = ["TenantStore"]


class TenantStore:
    """What one tenant has; nothing of others can be read or changed through it.

    Parameters
    ----------
    database : Database
    tenant : str

    Attributes
    ----------
    cursors : Cursors
        Where pages of lists begin.
    traces : Traces
    uploads : Uploads
        Traces that arrive in parts.
    series : SeriesStore
        Traces in time.
    plans : Plans
        Plans, fronts, re-plans, simulations and mixtures.
    topologies : Topologies
    """

    def __init__(self, database: Database, tenant: str) -> None:
        self.database = database
        self.tenant = tenant
        self.cursors = Cursors(database, tenant)
        self.traces = Traces(database, tenant)
        self.uploads = Uploads(database, tenant)
        self.series = SeriesStore(database, tenant)
        self.plans = Plans(database, tenant)
        self.topologies = Topologies(database, tenant)
