"""Counts of a server for Prometheus."""

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Metrics:
    """Requests by status, and seconds of those that were answered."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "edgedistill_requests", "Requests by status.", ["status"], registry=self._registry
        )
        self._seconds = Histogram(
            "edgedistill_seconds", "Seconds from request to answer.", buckets=SECONDS, registry=self._registry
        )

    def count(self, status: int, seconds: float | None = None) -> None:
        """Count a request."""
        self._requests.labels(str(status)).inc()
        if seconds is not None:
            self._seconds.observe(seconds)

    def text(self) -> tuple[bytes, int, None, str]:
        """Content, status, headers and media type of the answer."""
        return generate_latest(self._registry), 200, None, CONTENT_TYPE_LATEST
