"""Every setting, in one frozen object, read from the environment once at start.

All problems are listed at once. docs/settings.md is checked against this file by a test.
"""

from __future__ import annotations

import re
import ssl
from functools import cached_property
from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

MIB = 1024 * 1024
GIB = 1024 * MIB
# As browsers write it in the header Origin: lower case, no path, no port where it is the scheme's own.
_ORIGIN = re.compile(r"([a-z][a-z0-9+.-]*)://(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:]+\])(:[1-9]\d{0,4})?")
_OWN_PORTS = {"http": ":80", "https": ":443"}


class SettingsInvalid(Exception):
    """One or more settings are wrong; the message lists all of them."""


class Settings(BaseSettings):
    """What can be configured. Sizes in bytes and times in seconds unless the name says otherwise."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", env_file=".env", env_ignore_empty=True)

    # Database
    database_url: SecretStr = Field(description="Postgres for queries. Web may use a transaction pool.")
    database_direct_url: SecretStr | None = Field(
        None, description="Postgres without a transaction pool, for LISTEN and workers. Default: DATABASE_URL."
    )
    database_pool_size: int = Field(8, ge=1, le=200, description="Connections one process may hold.")

    # Auth
    jwt_secret: SecretStr | None = Field(None, description="HS256 secret of the Supabase project. Not with JWKS_URL.")
    jwks_url: str | None = Field(None, description="JWKS of the Supabase project, for ES256 and RS256 tokens.")
    jwt_issuer: str | None = Field(None, description="Pinned `iss`. Default: SUPABASE_URL + /auth/v1.")
    jwt_leeway_s: int = Field(10, ge=0, le=120, description="Clock difference forgiven in tokens.")

    # Supabase and storage
    supabase_url: str | None = Field(None, description="Base URL of the Supabase project.")
    supabase_secret_key: SecretStr | None = Field(None, description="Service key, for Storage. Never sent to a client.")
    storage: Literal["local", "supabase"] = Field("local", description="Where bytes live.")
    storage_path: Path = Field(Path(".ledgerline/storage"), description="Folder of local storage.")
    storage_bucket: str = Field("ledgerline", description="Bucket of Supabase storage.")
    link_secret: SecretStr | None = Field(
        None, description="Signs links to locally stored artifacts. Required for local."
    )
    link_ttl_s: int = Field(300, ge=10, le=86400, description="Life of a signed link.")

    # Front door
    host: str = Field("127.0.0.1", description="Address the API listens on.")
    port: int = Field(8000, ge=0, le=65535, description="Port the API listens on.")
    public_url: str | None = Field(None, description="Base URL clients use. Default: http://HOST:PORT.")
    allowed_origins: str | None = Field(
        None, description="Origins whose pages may call the API from a browser, by comma: https://app.example.com"
    )
    max_upload_bytes: int = Field(200 * MIB, ge=1024, description="Largest document accepted.")
    max_direct_upload_bytes: int = Field(
        2048 * MIB, ge=1024, description="Largest document accepted by a signed upload."
    )
    upload_ttl_s: int = Field(7200, ge=10, le=86400, description="Life of a signed upload, confirmation included.")
    max_batch_bytes: int = Field(64 * MIB, ge=1024, description="Largest body of a batch.")
    max_batch_items: int = Field(100_000, ge=1, le=1_000_000, description="Most items one batch may have.")
    max_body_bytes: int = Field(MIB, ge=1024, description="Largest JSON body accepted.")
    max_wait_s: int = Field(25, ge=0, le=120, description="Longest long poll.")
    export_connections: int = Field(
        2, ge=1, le=100, description="Exports one API process sends at a time, each on a connection of its own."
    )
    export_timeout_s: int = Field(1800, ge=1, le=86400, description="An export that is not over by then is cut off.")

    # Limits, for every tenant that has none of its own in `tenant_limits`
    max_active_jobs: int = Field(250_000, ge=1, description="Jobs of one tenant that are not over.")
    max_stored_bytes: int = Field(1024 * GIB, ge=1, description="Bytes of one tenant's documents and artifacts.")
    max_queue_depth: int = Field(2_000_000, ge=1, description="Queue jobs that wait, of all tenants together.")
    requests_per_minute: int = Field(
        6_000, ge=1, description="Requests of one member, or of one user outside a tenant, as each API process counts."
    )

    # Engine
    pipelines: str = Field("tasks.pipelines", description="Packages or modules that declare pipelines, by comma.")
    worker_queues: str = Field("cpu,llm,media,maintenance", description="Queues a worker serves, by comma.")
    worker_concurrency: int = Field(8, ge=1, le=1000, description="Step runs one worker has in hand at a time.")
    worker_children: int = Field(2, ge=1, le=64, description="Confined child processes of one worker.")
    child_max_tasks: int = Field(500, ge=1, description="Steps a child runs before it is replaced.")
    heartbeat_s: float = Field(1.0, gt=0, le=30, description="How often a worker shows that it is alive.")
    lease_s: float = Field(30.0, gt=1, le=3600, description="A worker silent for this long is taken for dead.")
    result_retention_days: int = Field(
        90, ge=1, description="Results of steps that no job refers to are used again for so long."
    )
    collect_after_s: float = Field(
        3600,
        gt=0,
        description="Stored bytes that no row names are deleted after so long. Longer than any upload takes.",
    )
    max_losses: int = Field(3, ge=1, le=100, description="A step run that lost this many workers fails.")
    queue_timeout_s: int = Field(
        300, ge=1, description="A job fails after waiting this long with no worker picking up."
    )
    sweep_interval_s: float = Field(60, gt=0, le=3600, description="How often workers reconcile the ledger.")
    drain_timeout_s: float = Field(25, ge=0, description="How long a stopping worker lets running steps finish.")
    max_items: int = Field(10_000, ge=1, le=100_000, description="Most items a map step may have.")

    # Webhooks
    max_webhooks: int = Field(10, ge=0, le=1000, description="Webhooks a tenant may have.")
    webhook_timeout_s: float = Field(
        10.0, gt=0, le=60, description="How long one attempt at a delivery may take in all."
    )
    webhook_failing_days: float = Field(5.0, gt=0, description="A webhook that took nothing for so long is disabled.")
    webhook_retention_days: int = Field(30, ge=1, description="Deliveries that ended are kept for so long.")
    webhook_ca_file: Path | None = Field(
        None, description="Certificates (PEM) of an authority that endpoints may have besides those of the system."
    )
    webhook_allow_loopback: bool = Field(
        False, description="Webhooks may lead to this machine, by http too. For development."
    )

    # Observation
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        "INFO", description="Least severe log line written."
    )
    metrics_token: SecretStr | None = Field(
        None, description="Bearer token for /metrics. Without it only callers on the same machine are answered."
    )
    otel_exporter_otlp_endpoint: str | None = Field(
        None,
        description="Base URL of a collector that takes traces by OTLP over HTTP. Default: no traces.",
    )
    deploy: str = Field("dev", description="Name of this deploy, recorded with each pipeline graph it publishes.")

    @model_validator(mode="after")
    def _fit_together(self) -> Settings:
        problems = []
        if self.jwt_secret and self.jwks_url:
            problems.append("JWT_SECRET and JWKS_URL are both set: choose one way to verify tokens")
        if (self.jwt_secret or self.jwks_url) and not (self.jwt_issuer or self.supabase_url):
            problems.append("JWT_ISSUER (or SUPABASE_URL) is needed to check whose tokens are taken")
        if self.storage == "supabase" and not (self.supabase_url and self.supabase_secret_key):
            problems.append("STORAGE=supabase needs SUPABASE_URL and SUPABASE_SECRET_KEY")
        if self.storage == "local" and not self.link_secret:
            problems.append("STORAGE=local needs LINK_SECRET to sign links")
        problems += [problem for origin in self.origins if (problem := _check_origin(origin))]
        if self.webhook_ca_file and not _holds_certificates(self.webhook_ca_file):
            problems.append(f"WEBHOOK_CA_FILE: {self.webhook_ca_file} holds no certificates that can be read")
        if self.heartbeat_s * 3 > self.lease_s:
            problems.append("LEASE_S must be at least three times HEARTBEAT_S")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @property
    def direct_url(self) -> str:
        """The connection string for LISTEN and workers."""
        return (self.database_direct_url or self.database_url).get_secret_value()

    @property
    def pipeline_packages(self) -> tuple[str, ...]:
        """Where pipelines are declared."""
        return tuple(name.strip() for name in self.pipelines.split(",") if name.strip())

    @cached_property
    def origins(self) -> frozenset[str]:
        """The origins whose pages may call the API."""
        return frozenset(name.strip() for name in (self.allowed_origins or "").split(",") if name.strip())

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues a worker serves."""
        return tuple(name.strip() for name in self.worker_queues.split(",") if name.strip())

    @property
    def base_url(self) -> str:
        """Where clients reach the API."""
        return (self.public_url or f"http://{self.host}:{self.port}").rstrip("/")


def load(**overrides: object) -> Settings:
    """Read and check all settings. Raises SettingsInvalid with one line per problem."""
    try:
        return Settings(**overrides)  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingsInvalid("\n".join(_lines(error))) from None


def _check_origin(origin: str) -> str | None:
    """What is wrong with an origin; None when a browser can send it."""
    found = _ORIGIN.fullmatch(origin)
    if "*" in origin:
        return f"ALLOWED_ORIGINS lists exact origins, and {origin} is a pattern"
    if found is None:
        return f"ALLOWED_ORIGINS: {origin} is not an origin (lower case, without a path): https://app.example.com"
    if found[2] and found[2] == _OWN_PORTS.get(found[1]):
        return f"ALLOWED_ORIGINS: browsers leave out the port of {origin}, so it must be left out here"
    return None


def _holds_certificates(path: Path) -> bool:
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError:
        return False
    return True


def _lines(error: ValidationError) -> list[str]:
    lines = []
    for problem in error.errors(include_input=False, include_url=False):
        name = ".".join(str(part) for part in problem["loc"]).upper()
        text = problem["msg"].removeprefix("Value error, ")
        lines += [f"{name}: {text}"] if name else text.split("; ")
    return lines
