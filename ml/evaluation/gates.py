"""When figures become findings: limits on mature windows of the champion, each at most once in a while."""

from dataclasses import dataclass
from typing import Final, Literal

import msgspec

from ml.evaluation.window import CHAMPION, Measured

Kind = Literal["accuracy", "false_positive_rate", "latency", "error_drift"]
NEVER_MS: Final = -(2**62)


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence that the champion is not what it was, or not what it should be.

    `value` went past `threshold`; `reference` is what the threshold was derived from, if anything. It is of `n`
    events with times in [from_ms, to_ms); of a rise in errors, of the event that gave it away. `window` names them, the
    same in every replay. `time_ms` is the newest label time.
    """

    kind: Kind
    variant: str
    model_id: str
    window: str
    value: float
    reference: float | None
    threshold: float
    n: int
    from_ms: int
    to_ms: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class GateRules:
    """Limits; schemas/streams.py (EvaluationSpec) says what each is. None is no limit."""

    min_samples: int
    accuracy_drop: float
    reference_accuracy: float | None
    reference_windows: int
    max_false_positive_rate: float | None
    max_latency_ms: float | None
    cooldown_ms: int


class GatesState(msgspec.Struct, frozen=True, array_like=True):
    """Gates at rest."""

    references: list[float]
    quiet_until_ms: dict[str, int]
    family: str = ""


class Gates:
    """Judges the champion's mature windows, in their order. Keeps the reference and when each kind was last found.

    The reference is of one family of models, which are the versions of a lineage, or a single model: where another one
    became the champion, it begins anew.
    """

    def __init__(self, rules: GateRules) -> None:
        self._rules = rules
        self._references: list[float] = []
        self._quiet_until_ms: dict[str, int] = {}
        self._family = ""

    def judge(
        self, measured: Measured, window: str, span_ms: tuple[int, int], event_head_ms: int, label_head_ms: int
    ) -> list[Finding]:
        """Return what one mature window gives reason for. Variants other than the champion are not judged."""
        figures = measured.figures
        if measured.variant != CHAMPION or figures.n < self._rules.min_samples:
            return []
        self._see(measured.model_id)
        limits: list[tuple[Kind, float | None, float | None, float | None]] = [
            ("false_positive_rate", figures.false_positive_rate, None, self._rules.max_false_positive_rate),
            ("latency", figures.latency_p50_ms, None, self._rules.max_latency_ms),
        ]
        if figures.accuracy is not None and (reference := self._reference(figures.accuracy)) is not None:
            limits.append(("accuracy", figures.accuracy, reference, reference * (1 - self._rules.accuracy_drop)))
        return [
            Finding(
                kind=kind,
                variant=measured.variant,
                model_id=measured.model_id,
                window=window,
                value=value,
                reference=reference,
                threshold=threshold,
                n=figures.n,
                from_ms=span_ms[0],
                to_ms=span_ms[1],
                time_ms=label_head_ms,
            )
            for kind, value, reference, threshold in limits
            if value is not None
            and threshold is not None
            and (value < threshold if kind == "accuracy" else value > threshold)
            and self.may_tell(kind, event_head_ms)
        ]

    def may_tell(self, kind: Kind, event_head_ms: int) -> bool:
        """Whether the kind's cool-down is over by the newest event time; if so, it begins anew."""
        if event_head_ms < self._quiet_until_ms.get(kind, NEVER_MS):
            return False
        self._quiet_until_ms[kind] = event_head_ms + self._rules.cooldown_ms
        return True

    def _see(self, model_id: str) -> None:
        """Begin a new reference when a model of another family has taken over; `lineage@offset` is one of a lineage."""
        family = model_id.rpartition("@")[0] or model_id
        if family != self._family:
            self._family, self._references = family, []

    def _reference(self, accuracy: float) -> float | None:
        """Return what accuracy is compared with; None for a window that is itself part of the reference."""
        if self._rules.reference_accuracy is not None:
            return self._rules.reference_accuracy
        if len(self._references) < self._rules.reference_windows:
            self._references.append(accuracy)
            return None
        return sum(self._references) / len(self._references)

    def dump(self) -> GatesState:
        """Return the state."""
        return GatesState(list(self._references), dict(self._quiet_until_ms), self._family)

    def load(self, state: GatesState) -> None:
        """Take over a state."""
        self._references, self._quiet_until_ms = list(state.references), dict(state.quiet_until_ms)
        self._family = state.family
