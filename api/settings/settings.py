"""Settings of the service: environment variables ``MOE_PLACEMENT_*``, each with a default that suits one machine."""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from api.settings.addresses import LOCAL, is_local_database, is_loopback, is_safe_url, parse_executor
from traces import Violations

__all__ = ["Settings", "default_data_dir", "read_settings", "unknown_variables", "webhook_key"]

PREFIX = "MOE_PLACEMENT_"
OTHERS = {"MOE_PLACEMENT_API_KEY"}  # of the command line, as a client
MB = 1 << 20


def default_data_dir() -> Path:
    """Return ``$XDG_DATA_HOME/moe-placement``, by default ``~/.local/share/moe-placement``."""
    base = os.environ.get("XDG_DATA_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".local" / "share") / "moe-placement"


class Settings(BaseSettings):
    """Settings of the service; sizes in bytes, durations in seconds."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    data_dir: Path = Field(default_factory=default_data_dir, description="Folder of the database and the traces.")
    database_url: str | None = Field(
        default=None, description="PostgreSQL, as postgresql://USER@HOST/NAME; SQLite in the data folder if left out."
    )
    blobs_url: str | None = Field(
        default=None, description="Object store of the traces, such as s3://BUCKET/PREFIX; the data folder if left out."
    )
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    log_level: str = Field(
        default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least level that is logged."
    )

    auth: Literal["off", "required"] = Field(
        default="off", description="`required` asks for a key or token; `off` is for the loopback only."
    )
    allowed_hosts: tuple[str, ...] = Field(
        default=(), description="Names that clients know this service by, as JSON; any if empty and auth is required."
    )
    allowed_origins: tuple[str, ...] = Field(
        default=(), description="Origins of web pages that may send changes, as JSON, besides the service's own."
    )
    oidc_issuer: str | None = Field(default=None, description="Issuer of tokens to accept besides keys.")
    oidc_audience: str = Field(default="moe-placement", description="Audience that tokens must be for.")
    oidc_jwks_url: str | None = Field(default=None, description="Where the issuer publishes its keys.")
    oidc_tenant_claim: str = Field(default="sub", description="Claim of a token that names its tenant.")
    oidc_scope_prefix: str = Field(default="moe-placement:", description="What scopes of a token begin with.")
    rate_per_s: float | None = Field(
        default=None, gt=0, description="Requests per second that one client may send; no limit if left out."
    )
    rate_burst: int = Field(default=100, ge=1, description="Requests that one client may send at once.")
    failures_per_s: float = Field(
        default=1.0, gt=0, description="Wrong keys and tokens per second of one address; more are not looked at."
    )
    failures_burst: int = Field(default=100, ge=1, description="Wrong keys and tokens of one address at once.")
    audit_days: float = Field(default=365.0, gt=0, description="How long the audit log is kept.")

    max_trace_bytes: int = Field(default=8192 * MB, ge=1, description="Largest trace to accept.")
    max_unpacked_bytes: int = Field(default=32_768 * MB, ge=1, description="Most that a packed trace may unpack to.")
    min_free_bytes: int = Field(
        default=256 * MB, ge=0, description="Room on the disk that is left to plans: traces are refused below it."
    )
    upload_hours: float = Field(default=48.0, gt=0, description="How long an upload in parts may take.")
    import_dirs: tuple[Path, ...] = Field(
        default=(), description="Folders of this machine, as JSON, whose files may be imported as traces."
    )
    import_urls: tuple[str, ...] = Field(
        default=(), description="What addresses to import from must begin with, as JSON: https://HOST/PATH/."
    )
    webhook_url: str | None = Field(
        default=None, description="Where to tell that a re-plan pays: https, or an address of this machine."
    )
    webhook_secret: SecretStr | None = Field(
        default=None, description="Signs what the webhook is told: whsec_ and 24 to 64 bytes in base64."
    )
    max_json_bytes: int = Field(default=16 * MB, ge=1024, description="Largest JSON body to accept.")
    max_queued_plans: int = Field(default=1000, ge=1, description="Plans that may wait; more are answered with 429.")
    max_job_bytes: int = Field(default=8192 * MB, ge=MB, description="Largest estimate of a job's memory to accept.")
    job_memory_bytes: int | None = Field(
        default=None, ge=512 * MB, description="Memory of a worker; a job that asks for more fails alone."
    )
    tenant_trace_bytes: int = Field(
        default=65_536 * MB, ge=1, description="Bytes of traces that a tenant may keep, with those of open uploads."
    )
    tenant_open_uploads: int = Field(default=32, ge=1, description="Uploads in parts that a tenant may have begun.")
    tenant_active_plans: int = Field(
        default=100, ge=1, description="Jobs of a tenant, of any kind, that may wait or run."
    )
    tenant_topologies: int = Field(default=1000, ge=1, description="Topologies that a tenant may keep.")
    tenant_series: int = Field(default=100, ge=1, description="Series of traces that a tenant may keep.")
    keep_days: float | None = Field(
        default=None, gt=0, description="Finished plans, and traces that no plan was made for since, go after so long."
    )
    scrub_days: float = Field(
        default=7.0, gt=0, description="How often every stored trace is read, to find damage of the disk."
    )
    max_wait_s: float = Field(default=60.0, ge=0, le=600, description="Longest wait that `Prefer: wait` can ask for.")
    max_time_limit_s: float = Field(
        default=3600.0, gt=0, description="Longest search; one without a time limit ends there too."
    )

    executor: str = Field(
        default=LOCAL, description="Where plans run: `processes` of this machine, or a cluster, as dask://HOST:PORT."
    )
    max_workers: int = Field(
        default=2, ge=1, le=256, description="Plans that run at the same time, each in its own process."
    )
    threads_per_plan: int | None = Field(default=None, ge=1, description="Threads of a plan; all cores by default.")
    helpers: int = Field(
        default=1,
        ge=1,
        le=64,
        description="Processes that read long uploads, and as many for long evaluations; two more do what is short.",
    )
    max_read_s: float = Field(
        default=300.0, gt=0, description="Longest time to read an upload, or for an evaluation or a look at a trace."
    )
    niceness: int = Field(
        default=10, ge=0, le=19, description="Added to the niceness of workers, so that requests come first."
    )
    lease_s: float = Field(
        default=30.0, ge=1, description="A running plan that gives no sign of life for so long is queued again."
    )
    max_crashes: int = Field(default=3, ge=1, description="A plan whose worker dies so many times has failed.")
    idempotency_hours: float = Field(default=24.0, gt=0, description="How long an Idempotency-Key is remembered.")
    shutdown_s: float = Field(
        default=5.0, ge=0, description="How long a stopping server waits for requests and workers."
    )

    @model_validator(mode="after")
    def _refuse_open_server(self) -> Settings:
        if not is_loopback(self.host) and self.auth == "off":
            raise ValueError(
                f"Host {self.host!r} is reachable from other machines, and nobody would be asked who they are. "
                "Set MOE_PLACEMENT_AUTH=required and make a key with `moe-placement key create`, or use 127.0.0.1."
            )
        if (self.oidc_issuer is None) != (self.oidc_jwks_url is None):
            raise ValueError("Give both MOE_PLACEMENT_OIDC_ISSUER and MOE_PLACEMENT_OIDC_JWKS_URL, or neither.")
        if self.oidc_jwks_url is not None and not is_safe_url(self.oidc_jwks_url):
            raise ValueError("MOE_PLACEMENT_OIDC_JWKS_URL must begin with https://, or be on this machine.")
        return self

    @model_validator(mode="after")
    def _refuse_a_webhook_that_anybody_reads(self) -> Settings:
        if (self.webhook_url is None) != (self.webhook_secret is None):
            raise ValueError("Give both MOE_PLACEMENT_WEBHOOK_URL and MOE_PLACEMENT_WEBHOOK_SECRET, or neither.")
        if self.webhook_url is not None and not is_safe_url(self.webhook_url):
            raise ValueError("MOE_PLACEMENT_WEBHOOK_URL must begin with https://, or be on this machine.")
        if self.webhook_secret is not None:
            webhook_key(self.webhook_secret.get_secret_value())
        return self

    @model_validator(mode="after")
    def _refuse_workers_that_reach_nothing(self) -> Settings:
        cluster = parse_executor(self.executor)
        if cluster is None:
            return self
        if self.job_memory_bytes is not None:
            raise ValueError(
                "MOE_PLACEMENT_JOB_MEMORY_BYTES limits processes of this machine only; give the workers of the cluster "
                "a limit of their own, `dask worker --memory-limit`."
            )
        if (self.blobs_url or "").startswith("memory:"):
            raise ValueError("MOE_PLACEMENT_BLOBS_URL is in this process's memory, which no worker can reach.")
        if not is_loopback(cluster.host) and is_local_database(self.store_url):
            raise ValueError(
                f"Workers of a cluster at {cluster.host!r} can't reach a database that is on this machine only. Set "
                "MOE_PLACEMENT_DATABASE_URL to PostgreSQL, by a name that they know too."
            )
        return self

    @property
    def store_url(self) -> str:
        """URL of the database: the one that is set, or the embedded one."""
        return self.database_url or f"sqlite:///{self.data_dir.absolute() / 'service.db'}"


def read_settings(**given: Any) -> Settings:
    """Return the settings, with what is given in place of the environment's where it is not None.

    Raises
    ------
    InputError
        With every setting that is out of range.
    """
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        found = Violations()
        for item in error.errors():
            name = ".".join(map(str, item["loc"])) or "host"
            detail = str(item["msg"]).removeprefix("Value error, ").rstrip(".") + "."
            remedy = f"Set MOE_PLACEMENT_{name.upper()}, or the option of the command."
            found.add("setting", f"/{name}", detail, remedy)
        raise found.error() from None


def webhook_key(secret: str) -> bytes:
    """Return the key of a webhook's secret.

    Raises
    ------
    ValueError
        Without telling it.
    """
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True) if secret.startswith("whsec_") else b""
    except binascii.Error:
        key = b""
    if not 24 <= len(key) <= 64:
        raise ValueError("MOE_PLACEMENT_WEBHOOK_SECRET must be whsec_ and 24 to 64 bytes in base64.")
    return key


def unknown_variables() -> list[str]:
    """Return the variables of the environment that look like a setting and are none: misspelt, most likely."""
    known = {f"{PREFIX}{name}".upper() for name in Settings.model_fields} | OTHERS
    return sorted(name for name in os.environ if name.upper().startswith(PREFIX) and name.upper() not in known)
