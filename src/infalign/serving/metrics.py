"""What Prometheus is told: counts and times, never what anybody asked or which key they have."""

from typing import final

try:
    from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
    from prometheus_client import exposition as _exposition
except ModuleNotFoundError as error:
    raise ImportError(
        "serving needs the package 'prometheus-client', which is not installed: "
        "pip install 'infalign[serve]'"
    ) from error

__all__ = ["Metrics"]

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


@final
class Metrics:
    """One registry per server, so that two in a process do not meet."""

    media_type = _exposition.CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self._counter("requests", "Requests.", ("endpoint", "status"))
        self.seconds = self._histogram("request_seconds", "Arrival to answer.", ("endpoint",))
        self.answering = self._gauge("answers_in_progress", "Answers being found.")
        self.waiting = self._gauge("answers_waiting", "Requests waiting for a place.")
        self.disconnects = self._counter("disconnects", "Clients that left before their answer.")
        self.candidates = self._counter("candidates", "Responses drawn from the upstream.")
        self.tokens = self._counter("tokens", "Tokens the upstream counted.", ("kind",))
        self.upstream = self._counter("upstream_requests", "Asked of the upstream.", ("status",))
        self.upstream_seconds = self._histogram("upstream_seconds", "Upstream's own time.")
        self.scored = self._counter("reward_texts", "Texts scored.")
        self.reward_failures = self._counter("reward_failures", "Scores that could not be had.")
        self.reward_seconds = self._histogram("reward_seconds", "One call of the reward.")

    def text(self) -> bytes:
        """As a scraper reads it."""
        return generate_latest(self.registry)

    def _counter(self, name: str, about: str, labels: tuple[str, ...] = ()) -> Counter:
        return Counter(f"infalign_{name}", about, labels, registry=self.registry)

    def _gauge(self, name: str, about: str) -> Gauge:
        return Gauge(f"infalign_{name}", about, registry=self.registry)

    def _histogram(self, name: str, about: str, labels: tuple[str, ...] = ()) -> Histogram:
        return Histogram(
            f"infalign_{name}", about, labels, buckets=_SECONDS, registry=self.registry
        )
