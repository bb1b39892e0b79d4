"""Metrics of several replicas as one text."""

from __future__ import annotations

import pytest

pytest.importorskip("prometheus_client")
pytest.importorskip("fastapi")

from prometheus_client.parser import text_string_to_metric_families

from bagel.app.replicas.merged import merged
from bagel.app.server.metrics import Visits

REPLICA = """# HELP bagel_requests_total Requests answered.
# TYPE bagel_requests_total counter
bagel_requests_total{route="/v1/models",status="200"} 5.0
# TYPE bagel_tokens_written_total counter
bagel_tokens_written_total 7.0
# TYPE bagel_stream_errors_total counter
bagel_stream_errors_total{status="503"} 2.0
"""


def test_replicas_are_a_label_and_requests_are_counted_once():
    visits = Visits()
    visits.count_request("/v1/models", 200, 0.1)
    visits.count_error(503)
    text = merged(visits.text().decode(), {"a": REPLICA, "b": REPLICA}).decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    found = {(sample.name, sample.labels.get("replica")): sample.value for sample in samples}
    assert found["bagel_requests_total", None] == 1
    assert ("bagel_requests_total", "a") not in found
    assert found["bagel_tokens_written_total", "a"] == found["bagel_tokens_written_total", "b"] == 7
    assert (found["bagel_stream_errors_total", None], found["bagel_stream_errors_total", "a"]) == (1, 2)
    assert text.count("# TYPE bagel_tokens_written_total ") == 1
