"""What is shown of models: who serves, who else scores, how good each was window by window, and what is tried."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final, Literal

from app.page.document import Arm, Champion, Models, OtherModel, ShownExperiment, WindowFigure
from app.page.versions import Versions
from ml.evaluation.proportion import wilson_interval
from schemas.events import Deployment, Performance, VariantPerformance
from schemas.experiments import BUCKETS, CHAMPION, ExperimentReport, VariantFigures

WINDOWS: Final = 120
MOST_VARIANTS: Final = 4
Figure = Literal["roc_auc", "accuracy"]


class ModelFold:
    """The fold of `<s>.models` (in `versions`), `<s>.deployments`, `<s>.performance` and `<s>.experiments`."""

    def __init__(self) -> None:
        self.versions = Versions()
        self._since_ms = 0
        self._since_before = False
        self._windows: OrderedDict[int, Performance] = OrderedDict()
        self._told_ms: dict[int, int] = {}
        self._report: ExperimentReport | None = None
        self.deployment: Deployment | None = None
        self.routed: frozenset[str] = frozenset()
        """The models that score events now."""

    def take_deployment(self, deployment: Deployment) -> None:
        """Go on with a later routing."""
        if self.deployment is None or self.deployment.champion != deployment.champion:
            self._since_ms = deployment.changed_time_ms
            self._since_before = self.deployment is None and deployment.revision > 1
        self.deployment = deployment
        variants = deployment.experiment.variants if deployment.experiment else ()
        self.routed = frozenset((deployment.champion, *deployment.shadows, *(variant.model_id for variant in variants)))
        self.versions.keep(self.routed | {deployment.previous})

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

    def scores(self, model_id: str) -> bool:
        """Whether a model scores events now, or one that came after it in its lineage; true while none is known."""
        if self.deployment is None or model_id in self.routed:
            return True
        return any(self.versions.is_same(model_id, routed) for routed in self.routed)

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
        """Return figures of a model, or of a later snapshot, in the newest mature window told of since `told_ms`."""
        for number, window in sorted(self._windows.items(), reverse=True):
            if window.mature and self._told_ms[number] >= told_ms:
                for variant in window.variants:
                    if self.versions.is_same(model_id, variant.model_id):
                        return variant
        return None

    @property
    def figure(self) -> Figure:
        """By what models are judged: the AUC, unless no window has one."""
        found = any(variant.roc_auc is not None for window in self._windows.values() for variant in window.variants)
        return "roc_auc" if found else "accuracy"

    def models(self) -> Models:
        """Return who serves and scores, and the figures of the newest windows by variant, oldest first."""
        figure, placed = self.figure, self._placed()
        newest = {variant: self.newest_of(variant, model_id) for variant, model_id in placed.items()}
        return Models(
            champion=self._champion(),
            others=self._others(),
            figure=figure,
            windows=self._by_variant(figure, tuple(placed)),
            newest={variant: found for variant, found in newest.items() if found is not None},
        )

    def newest_of(self, variant: str, model_id: str) -> WindowFigure | None:
        """Return the figure to be told of the model that is this variant now; None while nothing is known of it."""
        for _, window in sorted(self._windows.items(), reverse=True):
            for found in window.variants if window.mature else ():
                if found.variant == variant and self.versions.is_same(found.model_id, model_id):
                    shown = _figure(window, found, self.figure)
                    if shown.value is not None:
                        return shown
        return None

    def _placed(self) -> dict[str, str]:
        """Return the models that score now, by the variant as which they are evaluated; the champion is the first."""
        return ({CHAMPION: self.deployment.champion} if self.deployment else {}) | {
            other.variant: other.model_id for other in self._others()
        }

    def _champion(self) -> Champion | None:
        if self.deployment is None:
            return None
        known = self.versions.of(self.deployment.champion)
        return Champion(
            model_id=self.deployment.champion,
            version=known.version,
            algorithm=known.algorithm,
            since_time_ms=self._since_ms,
            since_before=self._since_before,
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
        return self.versions.of(model_id).lineage or model_id

    def _by_variant(self, figure: Figure, placed: Sequence[str]) -> dict[str, tuple[WindowFigure, ...]]:
        """Return the figures of four variants: of those that score now, and then of the latest that did."""
        windows = sorted(self._windows.items())
        late = [variant.variant for _, window in reversed(windows) for variant in window.variants]
        shown = list(dict.fromkeys((CHAMPION, *placed, *late)))[:MOST_VARIANTS]
        found: dict[str, list[WindowFigure]] = {name: [] for name in shown}
        for _, window in windows:
            for variant in window.variants:
                if variant.variant in found:
                    found[variant.variant].append(_figure(window, variant, figure))
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


def _figure(window: Performance, variant: VariantPerformance, figure: Figure) -> WindowFigure:
    if figure == "roc_auc":
        value, low, high = variant.roc_auc, variant.roc_auc_low, variant.roc_auc_high
    else:
        value = variant.accuracy
        low, high = (None, None) if value is None else wilson_interval(value, variant.n)
    return WindowFigure(
        to_time_ms=window.to_time_ms, value=value, low=low, high=high, n=variant.n, mature=window.mature
    )
