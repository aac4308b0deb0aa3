"""A fuzzer over the whole schema and along its links, with and without keys: answers are as it says, never a fault.

`FUZZ_EXAMPLES=150 pytest tests/api/test_fuzz.py` sends more than 10,000 requests; `FUZZ_DATABASE=postgresql` has them
served from PostgreSQL.
"""

from __future__ import annotations

import json
import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from hypothesis.errors import FlakyStrategyDefinition
from schemathesis.checks import CHECKS
from schemathesis.config import SchemathesisConfig
from schemathesis.core.parameters import ParameterLocation
from schemathesis.generation.feedback import FeedbackSources
from schemathesis.generation.hypothesis import builder
from schemathesis.pytest._test_builder import build_operation_test
from schemathesis.python._constants.orchestrator import make_constants_value_source

from api.service.app import create_app
from api.settings.settings import Settings
from api.store.database import Database
from api.store.keys import Keys

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "5"))
FUZZ_ALL = EXAMPLES >= 150
ROUNDS = 10  # along the links, at least: with fewer, some links are not taken
FUZZ_POSTGRES = os.environ.get("FUZZ_DATABASE") == "postgresql"
# A well-formed request may name what is not there, or break a rule that no schema can state: the other answers that a
# valid one may have. All checks of the fuzzer are on.
CHECKED: dict[str, Any] = {
    "checks": {
        "positive_data_acceptance": {
            "expected-statuses": ["2xx", "304", "400", "404", "409", "413", "415", "422", "429", "503"]
        },
        "negative_data_rejection": {
            "expected-statuses": ["400", "401", "403", "404", "405", "409", "413", "415", "422", "428", "429"]
        },
        "max_response_time": 60,
    }
}
# Every combination of what is wrong in a nested body takes minutes to list; drawn ones remain for these.
DRAWN: dict[str, Any] = {
    "operations": [
        {"include-name": f"POST /v1/{name}", "phases": {"coverage": {"enabled": FUZZ_ALL}}}
        for name in (
            "plans",
            "plans/validate",
            "fronts",
            "replans",
            "simulations",
            "mixtures",
            "evaluations",
            "topologies",
        )
    ]
}
SETTINGS = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
LIMITS = {"max_time_limit_s": 0.5, "max_wait_s": 0.2, "max_job_bytes": 1 << 28, "max_json_bytes": 1 << 22}
LIMITS |= {
    "tenant_open_uploads": 100_000,
    "tenant_series": 100_000,
    "tenant_topologies": 100_000,
}  # a fuzzer begins many


class Target:
    """A service with one of everything, so that requests reach further than to a 404.

    Parameters
    ----------
    server : Server
    content : bytes
        A trace.
    key : str or None
        Of an admin.
    """

    def __init__(self, server: Any, content: bytes, key: str | None) -> None:
        self.server, self.content = server, content
        self.headers = {} if key is None else {"Authorization": f"Bearer {key}"}

    def fill(self) -> dict[str, str]:
        """Return the ids of a trace, a finished plan, a finished front, a topology, an upload, a series and a key."""
        http = self.server.http
        trace = http.post("/v1/traces", content=self.content, headers=self.headers).json()["id"]
        asked = {"trace": trace, "topology": "1x4", "solver": "contiguous"}
        found = {"trace_id": trace}
        for name, path, body in (
            ("plan_id", "/v1/plans", asked),
            ("front_id", "/v1/fronts", asked | {"solver": "annealing", "points": 3, "limits": {"work": 1000}}),
            ("topology_id", "/v1/topologies", {"topology": "2x4"}),
            ("upload_id", "/v1/uploads", {}),
            ("series_id", "/v1/series", {}),
            ("key_id", "/v1/keys", {"scopes": ["read"], "name": secrets.token_hex(4)}),
        ):
            again = {} if name not in ("plan_id", "front_id") else {"Idempotency-Key": name}
            answer = http.post(path, json=body, headers=self.headers | again)
            assert answer.status_code < 300, answer.text
            found[name] = answer.json()["id"]
        return found

    def send(self, case: schemathesis.Case[Any], ids: dict[str, str]) -> None:
        """Send a request and check its answer. Most that are well formed name what is there."""
        real = sum(map(len, map(str, case.path_parameters.values()))) % 4 > 0
        if real and not _is_negative(case, ParameterLocation.PATH):
            for name in case.path_parameters:
                case.path_parameters[name] = ids.get(name, case.path_parameters[name])
        if isinstance(case.body, dict) and not _is_negative(case, ParameterLocation.BODY):
            for name, known in (
                ("trace", "trace_id"),
                ("plan", "plan_id"),
                ("start", "plan_id"),
                ("running", "plan_id"),
            ):
                if isinstance(case.body.get(name), str):
                    case.body[name] = ids[known]
        case.call_and_validate(base_url=str(self.server.http.base_url), headers=self.headers, timeout=120)


def _is_negative(case: schemathesis.Case[Any], location: ParameterLocation) -> bool:
    return case.meta is None or case.meta.is_negative_at(location)


@pytest.fixture(scope="module")
def database(request: pytest.FixtureRequest) -> Callable[[], dict[str, Any]]:
    """Return what makes the settings of a database: embedded, or an empty one of PostgreSQL."""

    def settings() -> dict[str, Any]:
        if not FUZZ_POSTGRES:
            return {}
        return {"database_url": request.getfixturevalue("postgres").database(f"fuzz_{secrets.token_hex(8)}")}

    return settings


@pytest.fixture(scope="module")
def open_target(
    tmp_path_factory: pytest.TempPathFactory,
    server_type: Any,
    trace_bytes: bytes,
    database: Callable[[], dict[str, Any]],
) -> Iterator[Target]:
    """Start a service that asks nobody."""
    server = server_type.start(tmp_path_factory.mktemp("fuzz") / "data", **LIMITS, **database())
    yield Target(server, trace_bytes, None)
    server.kill()


@pytest.fixture(scope="module")
def guarded_target(
    tmp_path_factory: pytest.TempPathFactory,
    server_type: Any,
    trace_bytes: bytes,
    database: Callable[[], dict[str, Any]],
) -> Iterator[Target]:
    """Start a service that asks for keys, and does not mind that the fuzzer sends many wrong ones."""
    folder = tmp_path_factory.mktemp("fuzz") / "data"
    folder.mkdir()
    where = database()
    known = Database(where.get("database_url", f"sqlite:///{folder / 'service.db'}"))
    known.upgrade()
    key, _ = Keys(known).create("fuzzer", ["admin"])
    known.close()
    server = server_type.start(folder, auth="required", failures_burst=1_000_000, **LIMITS, **where)
    yield Target(server, trace_bytes, key)
    server.kill()


@pytest.fixture
def ids(request: pytest.FixtureRequest) -> dict[str, str]:
    """Fill the service that the test is about."""
    target = request.getfixturevalue("guarded_target" if "guarded_target" in request.fixturenames else "open_target")
    found: dict[str, str] = target.fill()
    return found


DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"
OPERATIONS = [
    f"{method.upper()} {path}"
    for path, item in json.loads(DOCUMENT.read_text())["paths"].items()
    for method in item
    if method in {"get", "put", "post", "delete", "patch", "head"}
]
# What a test that the fuzzer made bears if it could not make all that it should.
INCOMPLETE = (
    builder.UnsatisfiableExampleMark,
    builder.NonSerializableMark,
    builder.InvalidRegexMark,
    builder.InvalidHeadersExampleMark,
    builder.MissingPathParameters,
)


@cache
def _document(auth: Any) -> dict[str, Any]:
    return create_app(Settings(data_dir=Path("unused"), auth=auth)).openapi()


class Fuzzer:
    """The schema with a configuration, and what the fuzzer makes of it."""

    def __init__(self, config: dict[str, Any], auth: Any = "off") -> None:
        document = deepcopy(_document(auth))
        self.schema: Any = schemathesis.openapi.from_dict(document, config=SchemathesisConfig.from_dict(config))
        self._feedback = FeedbackSources(constants_value_source=make_constants_value_source(self.schema))

    def run(self, label: str, send: Callable[[schemathesis.Case[Any]], None]) -> None:
        """Send what is made for an operation.

        It is made here, by one process: `schema.parametrize()` makes all that there is for all operations while tests
        are collected, which every process does.
        """
        method, path = label.split()
        operation = self.schema[path][method]

        @SETTINGS
        def sent(case: schemathesis.Case[Any]) -> None:
            send(case)

        test: Any = build_operation_test(
            config=self.schema.config, operation=operation, test_func=sent, given_kwargs={}, feedback=self._feedback
        )
        test()
        assert not [mark for mark in INCOMPLETE if mark.is_set(test)]


@cache
def opened() -> Fuzzer:
    """Return the fuzzer of a service that asks nobody."""
    return Fuzzer(CHECKED | DRAWN)


@cache
def guarded() -> Fuzzer:
    """Return the fuzzer of a service with keys.

    What is new is who may ask: listing what is wrong in bodies a second time is left to the long form.
    """
    return Fuzzer(CHECKED | {"phases": {"coverage": {"enabled": FUZZ_ALL}}}, auth="required")


@cache
def linked() -> Fuzzer:
    """Return the fuzzer of links.

    Settings of single operations would widen what `include` leaves of a schema to all of it.
    """
    return Fuzzer(CHECKED)


def test_all_operations_are_fuzzed() -> None:
    """What is listed while tests are collected is what the services offer."""
    for fuzzer in (opened(), guarded()):
        assert sorted(found.ok().label for found in fuzzer.schema.get_all_operations()) == sorted(OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_schema_is_kept(operation: str, open_target: Target, ids: dict[str, str]) -> None:
    """Whatever the schema allows or forbids, answers are as it says, and never a fault of the service."""
    opened().run(operation, lambda case: open_target.send(case, ids))


@pytest.mark.parametrize("operation", OPERATIONS)
def test_schema_is_kept_with_keys(operation: str, guarded_target: Target, ids: dict[str, str]) -> None:
    """The same with a key; without it, or with a wrong one, what succeeds with it is refused."""
    guarded().run(operation, lambda case: guarded_target.send(case, ids))


def _operation(case: schemathesis.Case[Any]) -> str:
    found: str = case.operation.definition.raw["operationId"]
    return found


class Scenario:
    """A run of calls that makes something and follows the links to it; mixed into the machine of a schema."""

    target: Target
    answered: Counter[str]
    fresh: Callable[[], bytes]

    def before_call(self, case: schemathesis.Case[Any]) -> None:
        """Send what makes something, as a random trace or plan hardly ever does; every other one stays random."""
        if _is_negative(case, ParameterLocation.BODY) or len(str(case.headers)) % 2:
            return
        if _operation(case) == "upload":
            case.body, case.query = self.fresh(), {}  # else it is there already, and the answer another one
            for name in ("Content-Digest", "Content-Encoding"):
                case.headers.pop(name, None)
        elif _operation(case) in ("create_plan", "create_front"):
            trace = self.target.server.http.post("/v1/traces", content=self.target.content).json()["id"]
            case.body = {"trace": trace, "topology": "1x4", "solver": "annealing", "limits": {"work": 1000}}
        elif _operation(case) == "create_topology":
            case.body = {"topology": "2x4"}

    def get_call_kwargs(self, case: schemathesis.Case[Any]) -> dict[str, Any]:
        """Tell where the service is."""
        return {"base_url": str(self.target.server.http.base_url), "timeout": 120}

    def after_call(self, response: Any, case: schemathesis.Case[Any]) -> None:
        """Count what succeeds; wait for plans, as most of what leads on from them needs one."""
        super().after_call(response, case)  # type: ignore[misc]  # the machine has it
        if response.status_code >= 300:
            return
        self.answered[_operation(case)] += 1
        if _operation(case) == "create_plan":
            self.target.server.until(f"/v1/plans/{response.json()['id']}", lambda plan: plan["finished_at"])

    def validate_response(self, response: Any, case: schemathesis.Case[Any], **options: Any) -> None:
        """Check an answer; a plan may be there and have found nothing."""
        without = (
            [CHECKS.get_one("ensure_resource_availability")] if b"/problems/no-plan-yet" in response.content else []
        )
        case.validate_response(response, excluded_checks=without, recorder=self.recorder, transport_kwargs=options)  # type: ignore[attr-defined, arg-type]


@pytest.mark.parametrize(
    ("resource", "reached"),
    [
        ("traces", "get_trace"),
        ("uploads", "get_upload"),
        ("topologies", "get_topology"),
        ("plans", "get_plan"),
        ("fronts", "get_front"),
        ("keys", "revoke_key"),
    ],
)
def test_links_lead_to_what_was_made(
    open_target: Target, make_trace_bytes: Callable[..., bytes], resource: str, reached: str
) -> None:
    """Along the links of the schema, what was made is there until it is deleted, and answers are as it says."""
    own_paths = linked().schema.include(path_regex=f"^/v1/{resource}(/{{|$)")
    of_resource = own_paths.exclude(method="GET", path=f"/v1/{resource}")
    answered: Counter[str] = Counter()
    numbers = count(1)
    own = {
        "target": open_target,
        "answered": answered,
        "fresh": staticmethod(lambda: make_trace_bytes(tokens=200, seed=next(numbers))),
    }
    machine: Any = type("Machine", (Scenario, of_resource.as_state_machine()), own)
    # A service remembers, and plans take their time: where an answer depends on that, Hypothesis ends the run with this
    # error, maybe before it has got far. Faults of the service are other errors.
    whole = False
    with suppress(FlakyStrategyDefinition):
        machine.run(settings=settings(SETTINGS, max_examples=max(EXAMPLES + 2, ROUNDS), stateful_step_count=8))
        whole = True
    assert answered[reached] or (answered and not whole), answered
