"""Holds an application to its own OpenAPI document, by generated requests (Schemathesis)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.types import ASGIApp


def fuzz_contract(
    app: ASGIApp,
    *,
    headers: Mapping[str, str],
    known: Mapping[str, str] | None = None,
    examples: int = 20,
) -> dict[str, set[int]]:
    """Send `examples` generated requests, valid and invalid, to every operation of the document.

    Fails if an answer is a server error, or has a status, a media type or a body that the document
    does not declare. It runs the lifespan of `app` itself, so call it from a test that is not
    async.

    Args:
        app: the application, not running.
        headers: sent with every request, such as a token that may do everything.
        known: values of path parameters that exist; used in half of the requests, so that these
            go further than a 404.
        examples: how many requests each operation gets.

    Returns:
        The statuses that each operation answered with.
    """
    # Slow to import, and a dependency of development only.
    import hypothesis  # noqa: PLC0415
    import schemathesis  # noqa: PLC0415
    from hypothesis import strategies  # noqa: PLC0415
    from schemathesis.checks import not_a_server_error  # noqa: PLC0415
    from schemathesis.core.result import Ok  # noqa: PLC0415
    from schemathesis.python import asgi  # noqa: PLC0415
    from schemathesis.specs.openapi import checks  # noqa: PLC0415

    wanted = [
        not_a_server_error,
        checks.status_code_conformance,
        checks.content_type_conformance,
        checks.response_schema_conformance,
    ]
    seen: dict[str, set[int]] = {}

    def fuzz(operation: Any) -> None:
        cases = strategies.one_of(
            [operation.as_strategy(generation_mode=mode) for mode in schemathesis.GenerationMode]
        )

        @hypothesis.settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=True,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=cases, use_known=strategies.booleans())
        def call(case: Any, use_known: bool) -> None:
            if use_known and known and case.path_parameters:
                known_here = {name: known[name] for name in case.path_parameters if name in known}
                case.path_parameters.update(known_here)
            response = case.call_and_validate(headers=dict(headers), checks=wanted)
            seen.setdefault(operation.label, set()).add(response.status_code)

        call()

    try:
        schema = schemathesis.openapi.from_asgi("/openapi.json", app)
        for result in schema.get_all_operations():
            assert isinstance(result, Ok), f"the document is broken: {result}"
            fuzz(result.ok())
    finally:
        asgi.shutdown_lifespans()
    return seen
