"""What a server counts of itself, for Prometheus."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counts and times of one server, in a registry of its own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self.requests = Counter(
            "tutelage_requests",
            "Requests answered.",
            ["path", "status"],
            registry=self._registry,
        )
        self.seconds = Histogram(
            "tutelage_request_seconds",
            "From a request's head to the end of its answer.",
            ["path"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.model = Histogram(
            "tutelage_model_seconds",
            "That a model took to answer one picture.",
            ["model"],
            buckets=_BUCKETS,
            registry=self._registry,
        )
        self.refused = Counter(
            "tutelage_refused",
            "Pictures that were not answered.",
            ["status"],
            registry=self._registry,
        )
        self.in_hand = Gauge(
            "tutelage_in_hand_pictures",
            "Pictures that are answered now or wait for it.",
            registry=self._registry,
        )

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self._registry)
