"""What is shown of models: who serves, who else scores, how good each was window by window, and what is tried."""

from collections import OrderedDict
from typing import Final, Literal

from app.page.document import Arm, Champion, Models, OtherModel, ShownExperiment, WindowFigure
from ml.evaluation.proportion import wilson_interval
from schemas.events import Deployment, ModelVersion, Performance, VariantPerformance
from schemas.experiments import BUCKETS, CHAMPION, ExperimentReport, VariantFigures
from schemas.streams import StreamSpec

WINDOWS: Final = 120
MOST_VARIANTS: Final = 8


class ModelFold:
    """The fold of `<s>.models`, `<s>.deployments`, `<s>.performance` and `<s>.experiments`."""

    def __init__(self, spec: StreamSpec) -> None:
        self._task = spec.task
        self._described: dict[str, tuple[str, str, str]] = {}
        self._since_ms = 0
        self._windows: OrderedDict[int, Performance] = OrderedDict()
        self._told_ms: dict[int, int] = {}
        self._report: ExperimentReport | None = None
        self.deployment: Deployment | None = None

    def take_version(self, version: ModelVersion) -> None:
        """Go on with a later record of a model."""
        self._described[version.model_id] = (version.version, version.algorithm, version.lineage)

    def take_deployment(self, deployment: Deployment) -> None:
        """Go on with a later routing."""
        if self.deployment is None or self.deployment.champion != deployment.champion:
            self._since_ms = deployment.changed_time_ms
        self.deployment = deployment

    def take_performance(self, performance: Performance, told_ms: int) -> None:
        """Go on with a later window, or a better look at an earlier one; `told_ms` is Kafka's timestamp."""
        self._windows[performance.number] = performance
        self._told_ms[performance.number] = told_ms
        while len(self._windows) > WINDOWS:
            number, _ = self._windows.popitem(last=False)
            del self._told_ms[number]

    def take_report(self, report: ExperimentReport) -> None:
        """Go on with a later report; one without an experiment tells of shadows only."""
        if report.experiment_id:
            self._report = report

    @property
    def routed(self) -> frozenset[str]:
        """The models that score events now."""
        newest = self.deployment
        if newest is None:
            return frozenset()
        variants = newest.experiment.variants if newest.experiment else ()
        return frozenset((newest.champion, *newest.shadows, *(variant.model_id for variant in variants)))

    @property
    def newest_window(self) -> VariantPerformance | None:
        """The champion's figures in the newest mature window, else in the newest one."""
        found = [
            (window.mature, number, variant)
            for number, window in self._windows.items()
            for variant in window.variants
            if variant.variant == CHAMPION
        ]
        return max(found, key=lambda entry: entry[:2])[2] if found else None

    def matured_since(self, told_ms: int, model_id: str) -> VariantPerformance | None:
        """Return a model's figures in the newest mature window that was told of at `told_ms` or later."""
        for number, window in sorted(self._windows.items(), reverse=True):
            if window.mature and self._told_ms[number] >= told_ms:
                for variant in window.variants:
                    if variant.model_id == model_id:
                        return variant
        return None

    def models(self) -> Models:
        """Return who serves and scores, and the figures of the newest windows by variant, oldest first."""
        figure: Literal["roc_auc", "accuracy"] = "accuracy"
        if any(variant.roc_auc is not None for window in self._windows.values() for variant in window.variants):
            figure = "roc_auc"
        return Models(champion=self._champion(), others=self._others(), figure=figure, windows=self._by_variant(figure))

    def _champion(self) -> Champion | None:
        if self.deployment is None:
            return None
        version, algorithm, _ = self._described.get(self.deployment.champion, ("", "", ""))
        return Champion(
            model_id=self.deployment.champion, version=version, algorithm=algorithm, since_time_ms=self._since_ms
        )

    def _others(self) -> tuple[OtherModel, ...]:
        newest = self.deployment
        if newest is None:
            return ()
        challengers = newest.experiment.variants[1:] if newest.experiment else ()
        shown = [
            OtherModel(variant=v.name, model_id=v.model_id, role="challenger", share=v.buckets / BUCKETS)
            for v in challengers
        ]
        shown += [
            OtherModel(variant=self._shadow_name(model_id), model_id=model_id, role="shadow")
            for model_id in newest.shadows
        ]
        return tuple(shown)

    def _shadow_name(self, model_id: str) -> str:
        """Return the name under which a shadow is evaluated: its lineage's, if it has one."""
        return self._described.get(model_id, ("", "", ""))[2] or model_id

    def _by_variant(self, figure: Literal["roc_auc", "accuracy"]) -> dict[str, tuple[WindowFigure, ...]]:
        found: dict[str, list[WindowFigure]] = {CHAMPION: []}
        for _, window in sorted(self._windows.items()):
            for variant in window.variants:
                if variant.variant in found or len(found) < MOST_VARIANTS:
                    measured = _figure(window.to_time_ms, variant, figure)
                    found.setdefault(variant.variant, []).append(measured)
        return {name: tuple(figures) for name, figures in found.items() if figures}

    def experiment(self) -> ShownExperiment | None:
        """Return the experiment or rollout that runs; None when there is none."""
        running = self.deployment.experiment if self.deployment else None
        if running is None:
            return None
        report = self._report
        if report is None or report.experiment_id != running.experiment_id:
            arms = tuple(
                Arm(variant=v.name, model_id=v.model_id, share=v.buckets / BUCKETS, samples=0) for v in running.variants
            )
            metric, verdict, why = running.plan.metric, "too_early", "nothing has been reported of it yet"
        else:
            metric = (report.plan or running.plan).metric
            arms = tuple(_arm(figures, report, metric) for figures in report.variants)
            verdict, why = report.verdict, report.why
        return ShownExperiment(
            id=running.experiment_id, kind=running.kind, metric=metric, verdict=verdict, why=why, arms=arms
        )


def _arm(figures: VariantFigures, report: ExperimentReport, metric: str) -> Arm:
    contrast = next((c for c in report.contrasts if (c.variant, c.metric) == (figures.variant, metric)), None)
    return Arm(
        variant=figures.variant,
        model_id=figures.model_id,
        share=figures.share,
        samples=figures.samples,
        mean=figures.means.get(metric),
        difference=contrast.difference if contrast else None,
        low=contrast.low if contrast else None,
        high=contrast.high if contrast else None,
    )


def _figure(to_time_ms: int, variant: VariantPerformance, figure: Literal["roc_auc", "accuracy"]) -> WindowFigure:
    if figure == "roc_auc":
        value, low, high = variant.roc_auc, variant.roc_auc_low, variant.roc_auc_high
    else:
        value = variant.accuracy
        low, high = (None, None) if value is None else wilson_interval(value, variant.n)
    return WindowFigure(to_time_ms=to_time_ms, value=value, low=low, high=high, n=variant.n)
