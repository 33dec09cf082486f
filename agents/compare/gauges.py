"""What the newest report says, as metrics."""

import math
from collections.abc import Iterator, Mapping

from schemas.experiments import ExperimentReport, VariantFigures
from stream import metrics as m
from stream.metric_values import Metrics

_FIGURES = ("events", "errors", "samples", "call_ms", "score_psi", "f1", "roc_auc")


class Gauges:
    """The gauges of one stream's experiment and shadows. They are of the worker that compares, and of nobody else."""

    def __init__(self, metrics: Metrics, stream: str) -> None:
        self._metrics = metrics
        self._stream = stream

    def active(self, running: bool) -> None:
        """Show whether an experiment runs."""
        self._metrics.set(m.EXPERIMENT_ACTIVE, float(running), self._stream)

    def show(self, report: ExperimentReport) -> None:
        """Show a report in the place of the one before it."""
        self.forget()
        for shadow in report.shadows:
            self._metrics.set(m.SHADOW_DISAGREEMENT, shadow.disagreement, self._stream, shadow.variant)
        for figures in report.variants:
            labels = (self._stream, report.experiment_id, figures.variant)
            self._metrics.set(m.EXPERIMENT_TRAFFIC, figures.share, *labels)
            for name, value in _metrics_of(report, figures):
                self._metrics.set(m.EXPERIMENT_METRIC, math.nan if value is None else value, *labels, name)

    def missed(self, by_reason: Mapping[str, int]) -> None:
        """Count samples that an experiment does not count."""
        for reason, count in by_reason.items():
            self._metrics.count(m.EXPERIMENT_SAMPLES_MISSED, count, self._stream, reason)

    def forget(self) -> None:
        """Show nothing of any experiment or shadow."""
        for metric in (m.EXPERIMENT_TRAFFIC, m.EXPERIMENT_METRIC, m.SHADOW_DISAGREEMENT):
            self._metrics.forget(metric, self._stream)

    def close(self) -> None:
        """Show nothing at all."""
        self.forget()
        self._metrics.forget(m.EXPERIMENT_ACTIVE, self._stream)


def _metrics_of(report: ExperimentReport, figures: VariantFigures) -> Iterator[tuple[str, float | None]]:
    for name in _FIGURES:
        yield name, getattr(figures, name)
    yield from figures.means.items()
    for contrast in report.contrasts:
        if contrast.variant == figures.variant:
            for name in ("difference", "low", "high"):
                yield f"{contrast.metric}_{name}", getattr(contrast, name)
