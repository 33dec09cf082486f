"""The PromQL that panels share: of the streams that a dashboard shows, by labels, over Grafana's interval of rates.

A series is a metric with matchers, as `shown` makes it, or a bare name where a metric has no stream.
"""

from typing import Final

_RATE_INTERVAL: Final = "$__rate_interval"


def shown(metric: str, *matchers: str) -> str:
    """Return a metric of the streams that the viewer has chosen."""
    chosen = ", ".join(('stream=~"$stream"', *matchers))
    return f"{metric}{{{chosen}}}"


def total(series: str, *by: str) -> str:
    """Return the sum by these labels."""
    return _by("sum", by, series)


def greatest(series: str, *by: str) -> str:
    """Return the maximum by these labels: of a gauge that several workers may show."""
    return _by("max", by, series)


def least(series: str, *by: str) -> str:
    """Return the minimum by these labels."""
    return _by("min", by, series)


def per_second(series: str, *by: str) -> str:
    """Return how much a counter rises in a second, by these labels."""
    return total(f"rate({series}[{_RATE_INTERVAL}])", *by)


def quantile(share: float, buckets: str, *by: str, over: str = _RATE_INTERVAL) -> str:
    """Return a quantile of a histogram, whose series of buckets this is, by these labels."""
    rates = total(f"rate({buckets}[{over}])", *by, "le")
    return f"histogram_quantile({share}, {rates})"


def _by(operator: str, labels: tuple[str, ...], series: str) -> str:
    return f"{operator} by ({', '.join(labels)}) ({series})"
