"""What people are told when something that is routed cannot be had: an alert, once for each cause."""

import asyncio
import hashlib
import logging
from collections.abc import Awaitable, Callable
from typing import Literal

from aiokafka.errors import KafkaError

from schemas.events import Alert, Deployment, ModelVersion
from schemas.experiments import Experiment, Variant
from stream import metrics as m
from stream.metric_values import Metrics

log = logging.getLogger("penstock.serving")


class Complaints:
    """Raises the alerts of one stream. Their ids are derived, so that every worker raises the same one."""

    def __init__(
        self,
        stream: str,
        raise_alert: Callable[[Alert], Awaitable[None]],
        metrics: Metrics,
        clock_ms: Callable[[], int],
    ) -> None:
        self._stream = stream
        self._raise_alert = raise_alert
        self._metrics = metrics
        self._clock_ms = clock_ms
        self._alerted: set[tuple[str, str]] = set()

    async def of_champion(self, deployment: Deployment, serving: str, error: Exception) -> None:
        """Tell that a deployment's champion cannot be loaded; `serving` says what becomes of its events."""
        self._count_failure()
        await self._tell(
            "champion_unusable",
            "critical",
            (deployment.champion, f"{deployment.revision}/{deployment.champion}"),
            f"champion {deployment.champion} cannot be loaded: {error}; {serving}",
            "Restore the artifact, or promote another model.",
            error,
        )

    async def of_variant(self, experiment: Experiment, variant: Variant, error: Exception) -> None:
        """Tell that the model of a variant cannot be loaded."""
        self._count_failure()
        await self._tell(
            "variant_unusable",
            "medium",
            (variant.model_id, f"{experiment.experiment_id}/{variant.name}/{variant.model_id}"),
            f"model {variant.model_id} of variant {variant.name} cannot be loaded: {error}; "
            "its events get the champion's scores",
            f"Restore the artifact, or stop {experiment.kind} {experiment.experiment_id}.",
            error,
        )

    async def of_shadow(self, model_id: str, error: Exception) -> None:
        """Tell that a shadow cannot be loaded."""
        self._count_failure()
        await self._tell(
            "shadow_unusable",
            "low",
            (model_id, model_id),
            f"shadow {model_id} cannot be loaded: {error}; events are scored without it",
            f"Restore the artifact, or run `penstock models unshadow {model_id}`.",
            error,
        )

    async def of_baseline(self, champion: ModelVersion, source: ModelVersion, error: Exception) -> bool:
        """Tell that the baseline that `source` names cannot be used for `champion`; return whether that is out."""
        whose = "" if source.model_id == champion.model_id else f" of {source.model_id}"
        return await self._tell(
            "baseline_unusable",
            "low",
            (champion.model_id, f"{champion.model_id}/{source.baseline}"),
            f"the baseline{whose} for champion {champion.model_id} cannot be used: {error}; "
            "events are scored, and nobody watches their drift",
            "Restore the artifact, or make another: "
            f"`penstock drift baseline {champion.model_id} --stream {self._stream} --data FILE` (or --events N).",
            error,
        )

    def _count_failure(self) -> None:
        self._metrics.count(m.MODEL_LOAD_FAILURES, 1, self._stream)

    async def _tell(
        self,
        kind: str,
        severity: Literal["low", "medium", "critical"],
        subject: tuple[str, str],
        message: str,
        recommendation: str,
        error: Exception,
    ) -> bool:
        """Raise the alert, once for each error; return whether it is out.

        Of `subject` the first is what people are shown, and the second what makes the id, beside kind and stream.
        """
        shown, place = subject
        alert_id = _alert_id(kind.replace("_", "-"), f"{self._stream}/{place}")
        if (alert_id, str(error)) in self._alerted:
            return True
        alert = Alert(
            id=alert_id,
            stream=self._stream,
            kind=kind,
            severity=severity,
            subject=shown,
            message=message,
            recommendation=recommendation,
            raised_time_ms=self._clock_ms(),
        )
        log.log(logging.ERROR if severity == "critical" else logging.WARNING, "%s: %s", self._stream, message)
        try:
            await asyncio.shield(self._raise_alert(alert))  # goes out, even if this is given up for news
        except KafkaError as refused:
            log.warning("the alert will be raised again: %s", refused)
            return False
        self._alerted.add((alert_id, str(error)))
        return True


def _alert_id(kind: str, subject: str) -> str:
    return hashlib.sha256(f"{kind}/{subject}".encode()).hexdigest()[:32]
