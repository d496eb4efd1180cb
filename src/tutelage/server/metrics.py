"""Prometheus metrics of a server."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Metrics of one server, in their own registry."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "tutelage_requests",
            "Requests handled.",
            ["path", "status"],
            registry=self._registry,
        )
        self.seconds = Histogram(
            "tutelage_request_seconds",
            "Seconds from a request's headers to the end of its response.",
            ["path"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.model = Histogram(
            "tutelage_model_seconds",
            "Seconds that a model took to classify one image.",
            ["model"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.refused = Counter(
            "tutelage_refused",
            "Images refused.",
            ["status"],
            registry=self._registry,
        )
        self.in_hand = Gauge(
            "tutelage_in_hand_pictures",
            "Images being classified or waiting.",
            registry=self._registry,
        )

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)
