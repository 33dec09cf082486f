"""Gates: what the reference of accuracy belongs to."""

import msgspec

from ml.evaluation.figures import Figures
from ml.evaluation.gates import GateRules, Gates
from ml.evaluation.window import CHAMPION, Measured

RULES = GateRules(
    min_samples=1,
    accuracy_drop=0.05,
    reference_accuracy=None,
    reference_windows=2,
    max_false_positive_rate=None,
    max_latency_ms=None,
    cooldown_ms=0,
)


def found(gates: Gates, model_id: str, accuracy: float) -> list[tuple[str, float | None]]:
    """Judge one window; return the kind and reference of each finding."""
    nothing = dict.fromkeys((field.name for field in msgspec.structs.fields(Figures)), None)
    figures = Figures(**nothing | {"n": 100, "assumed": 0, "revised": 0, "accuracy": accuracy})  # type: ignore[arg-type]
    measured = Measured(CHAMPION, model_id, figures)
    return [(finding.kind, finding.reference) for finding in gates.judge(measured, "w", (0, 1), 0, 0)]


def test_the_reference_begins_anew_when_another_family_takes_over() -> None:
    gates = Gates(RULES)
    for accuracy in (0.9, 0.9):
        assert found(gates, "online@100", accuracy) == []
    assert found(gates, "online@200", 0.8) == [("accuracy", 0.9)]  # another version of the same lineage
    for accuracy in (0.7, 0.7):
        assert found(gates, "flights-2", accuracy) == []  # this is what the new one is measured by
    assert found(gates, "flights-2", 0.69) == []
    assert found(gates, "flights-2", 0.6) == [("accuracy", 0.7)]


def test_the_reference_survives_a_restart() -> None:
    before, after = Gates(RULES), Gates(RULES)
    for accuracy in (0.9, 0.9):
        found(before, "flights-1", accuracy)
    after.load(before.dump())
    assert found(after, "flights-1", 0.8) == [("accuracy", 0.9)]
