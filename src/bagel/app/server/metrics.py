"""`GET /metrics`: what Prometheus reads."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from bagel.infer.result import Result

if TYPE_CHECKING:
    from bagel.app.worker import Worker

_BOUNDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Visits:
    """Counts requests."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("bagel_requests", "Requests answered.", ["route", "status"], registry=self.registry)
        self.seconds = Histogram(
            "bagel_request_seconds",
            "Seconds from a request's arrival to the end of its answer.",
            ["route"],
            buckets=_BOUNDS,
            registry=self.registry,
        )
        self.stream_errors = Counter(
            "bagel_stream_errors", "Streams that ended with an error.", ["status"], registry=self.registry
        )

    def count_request(self, route: str, status: int, seconds: float) -> None:
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def count_error(self, status: int) -> None:
        self.stream_errors.labels(str(status)).inc()

    def text(self) -> bytes:
        return generate_latest(self.registry)


class Meter(Visits):
    """Counts what was made too, and asks the scheduler for the rest when somebody reads."""

    def __init__(self, worker: Worker) -> None:
        super().__init__()
        self.tokens = Counter("bagel_tokens_written", "Tokens written.", registry=self.registry)
        self.pictures = Counter("bagel_pictures_drawn", "Pictures drawn.", registry=self.registry)
        self.phases = Counter(
            "bagel_phase_seconds", "Seconds that requests spent by phase.", ["phase"], registry=self.registry
        )
        self.registry.register(_SchedulerCollector(worker))

    def add_result(self, result: Result) -> None:
        self.tokens.inc(result.stats.tokens)
        self.pictures.inc(len(result.images))
        for phase, seconds in result.stats.seconds.items():
            self.phases.labels(phase).inc(seconds)


class _SchedulerCollector(Collector):
    def __init__(self, worker: Worker) -> None:
        self.worker, self.began = worker, time.time()

    def collect(self) -> Iterator[Metric]:
        worker, scheduler = self.worker, self.worker.scheduler
        active = len(scheduler.active)
        yield GaugeMetricFamily("bagel_jobs_active", "Jobs under way.", value=active)
        yield GaugeMetricFamily("bagel_jobs_waiting", "Jobs that wait.", value=max(worker.open - active, 0))
        metrics = scheduler.metrics
        by_kind: dict[str, tuple[str, Mapping[str, float]]] = {
            "bagel_passes": ("Passes of the model, by what they did.", metrics.passes),
            "bagel_pass_seconds": ("Seconds of passes.", metrics.seconds),
            "bagel_pass_tokens": ("New tokens in passes, by what their job did.", metrics.tokens),
            "bagel_jobs": ("Jobs ended, by how.", metrics.ended),
        }
        for name, (told, values) in by_kind.items():
            family = CounterMetricFamily(name, told, labels=["kind"])
            for kind, value in dict(values).items():
                family.add_metric([kind], float(value))
            yield family
        yield CounterMetricFamily("bagel_pass_jobs", "Jobs in passes; over passes: occupancy.", value=metrics.occupancy)
        yield CounterMetricFamily("bagel_queue_seconds", "Seconds that jobs waited.", value=metrics.waited)
        yield CounterMetricFamily("bagel_cpu_seconds", "CPU seconds of all threads.", value=time.process_time())
        yield GaugeMetricFamily("bagel_memory_bytes", "Resident memory of the process.", value=resident())
        if torch.cuda.is_available():
            yield GaugeMetricFamily("bagel_gpu_memory_bytes", "Held on the GPU.", value=torch.cuda.memory_allocated())
        yield GaugeMetricFamily("bagel_start_time_seconds", "When the server began.", value=self.began)


def resident() -> int:
    """Bytes of memory that this process holds; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * 4096
