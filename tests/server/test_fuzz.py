"""The OpenAPI document, fuzzed: whatever is sent, the answer is one of those that are documented."""

from __future__ import annotations

import pytest

schemathesis = pytest.importorskip("schemathesis")
hypothesis = pytest.importorskip("hypothesis")

from server.live import running  # noqa: E402

EXPECTED = {200, 400, 401, 404, 405, 413, 429}


@pytest.mark.parametrize("examples", [8, pytest.param(150, marks=pytest.mark.slow)])
def test_no_surprise(served, examples):
    """Of every route, with values that fit the document."""
    settings = hypothesis.settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    with running(served, tokens=4, timesteps=3, drawn_pixels=128 * 128, n=2) as live:
        document = schemathesis.openapi.from_url(f"{live.url}/openapi.json")
        operations = [found.ok() for found in document.get_all_operations()]
        assert len(operations) == 7
        for operation in operations:
            seen = statuses(operation, settings)
            assert seen <= EXPECTED, operation.path
        live.wait_idle()


def statuses(operation, settings):
    """Of all answers to generated requests."""
    seen = set()

    @settings
    @hypothesis.given(case=operation.as_strategy())
    def send(case):
        seen.add(case.call(timeout=30).status_code)

    send()
    return seen
