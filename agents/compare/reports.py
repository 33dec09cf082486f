"""What a look at an experiment says, as the record that people and other programs read."""

from dataclasses import asdict

from agents.compare.tracked import Tracked
from ml.experiments.monitor import Look
from schemas.events import Deployment
from schemas.experiments import Contrast, ExperimentReport, GuardrailState, ShadowFigures, VariantFigures

Shadows = tuple[ShadowFigures, ...]


def report_of(tracked: Tracked, look: Look, number: int, shadows: Shadows) -> ExperimentReport:
    """Return the report of an experiment. Its models are those of the newest deployment."""
    experiment = tracked.experiment
    models = {variant.name: variant.model_id for variant in experiment.variants}
    return ExperimentReport(
        stream=tracked.deployment.stream,
        experiment_id=experiment.experiment_id,
        kind=experiment.kind,
        deployment_revision=tracked.deployment.revision,
        epoch=experiment.epoch,
        number=number,
        to_time_ms=tracked.to_time_ms,
        plan=experiment.plan,
        samples=look.samples,
        ripening=look.ripening,
        variants=tuple(
            VariantFigures(model_id=models[figures.variant], **asdict(figures)) for figures in look.variants
        ),
        contrasts=tuple(Contrast(**asdict(contrast)) for contrast in look.contrasts),
        guardrails=tuple(GuardrailState(**asdict(guardrail)) for guardrail in look.guardrails),
        shadows=shadows,
        sample_ratio_p=look.sample_ratio_p,
        verdict=look.verdict,
        winner=look.winner,
        step=look.step,
        why=look.why,
    )


def report_of_shadows(newest: Deployment, number: int, to_time_ms: int, shadows: Shadows) -> ExperimentReport:
    """Return the report of a stream that has shadows and no experiment."""
    names = ", ".join(figures.variant for figures in shadows)
    return ExperimentReport(
        stream=newest.stream,
        experiment_id="",
        kind="",
        deployment_revision=newest.revision,
        epoch=0,
        number=number,
        to_time_ms=to_time_ms,
        plan=None,
        samples=0,
        ripening=0,
        variants=(),
        contrasts=(),
        guardrails=(),
        shadows=shadows,
        sample_ratio_p=None,
        verdict="none",
        winner="",
        step="none",
        why=f"no experiment runs; compared with the champion {newest.champion}, without labels: {names}",
    )
