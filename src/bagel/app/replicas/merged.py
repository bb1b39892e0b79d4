"""Metrics of several replicas as one text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

COUNTED_BY_FRONT = ("bagel_requests", "bagel_request_seconds")


def merged(front: str, replicas: Mapping[str, str]) -> bytes:
    """front: the metrics counted before the replicas; replicas: those of each by its name, which becomes a label.
    Requests are counted once, by the front."""
    families: dict[str, Metric] = {family.name: family for family in text_string_to_metric_families(front)}
    for name, text in replicas.items():
        for found in text_string_to_metric_families(text):
            if found.name.removesuffix("_created") in COUNTED_BY_FRONT:
                continue
            family = families.setdefault(found.name, Metric(found.name, found.documentation, found.type))
            for sample in found.samples:
                family.samples.append(sample._replace(labels={**sample.labels, "replica": name}))
    registry = CollectorRegistry()
    registry.register(_Fixed(families))
    return generate_latest(registry)


class _Fixed(Collector):
    def __init__(self, families: Mapping[str, Metric]) -> None:
        self.families = families

    def collect(self) -> Iterator[Metric]:
        yield from self.families.values()
