"""Replaying history: the same scores come out the same, others are told apart, and labels are seen no earlier."""

from dataclasses import replace

import msgspec
import numpy as np

from agents.replay.identity import Identity, Whose
from agents.replay.labelled import Pairs
from agents.replay.question import Question, Span
from agents.replay.scoring import AsServed, OneModel
from ml.drift.baseline import make_baseline
from schemas.events import Sample, ShadowScore
from tests.replaying import DAWN_MS, SPEC, Linear, Registry, labelled, replayed, rows_of, served, sources_of

OLD, NEW = Linear(1.0), Linear(1.5)
ASK = Question(spec=SPEC, changed=SPEC)


def history(n: int, flip_from: int | None = None) -> tuple[list[object], list[Sample]]:
    """Return predictions of the old model, right but for every tenth, and from some event on always wrong."""
    rows = rows_of(n)
    predictions = [served(i, row, OLD) for i, row in enumerate(rows)]
    wrong = [i % 10 == 0 or (flip_from is not None and i >= flip_from) for i in range(n)]
    samples = [labelled(p, p.label ^ int(w)) for p, w in zip(predictions, wrong, strict=True)]
    return predictions, samples


async def test_models_that_served_give_the_very_scores_again_and_both_worlds_are_the_same() -> None:
    predictions, samples = history(600, flip_from=400)
    registry = Registry(old=OLD)
    of_served, of_labelled = await replayed(
        ASK, registry, AsServed(SPEC, registry.library, registry.identity), sources_of(predictions, samples)
    )
    [((variant, model_id, _), compared)] = of_served.compared.items()
    assert (variant, model_id, compared.events, compared.identical) == ("champion", "old", 600, 600)
    assert of_served.decisions.changes == {}
    assert of_labelled.told[0] == of_labelled.told[1]
    assert of_labelled.told[0].alerts, "the accuracy fell, and that must be found"
    assert of_labelled.reports[0] == of_labelled.reports[1]


async def test_a_score_that_was_logged_otherwise_is_told_by_variant_and_model() -> None:
    predictions, _ = history(50)
    predictions[7] = msgspec.structs.replace(predictions[7], score=predictions[7].score + 2**-20)
    shadow = ShadowScore(variant="new", model_id="new", score=0.123)
    predictions[9] = msgspec.structs.replace(predictions[9], shadows=(shadow,))
    predictions[11] = msgspec.structs.replace(predictions[11], model_id="gone", variant="b")
    registry = Registry(old=OLD, new=NEW)
    of_served, _ = await replayed(
        ASK, registry, AsServed(SPEC, registry.library, registry.identity), sources_of(predictions)
    )
    found = {
        key: (one.events, one.identical, one.different, one.not_executed) for key, one in of_served.compared.items()
    }
    assert found == {
        ("b", "gone", False): (1, 0, 0, 1),
        ("champion", "old", False): (49, 48, 1, 0),
        ("new", "new", True): (1, 0, 1, 0),
    }
    assert registry.library.problems == {"gone": "stream shop has no model 'gone'"}


def test_scores_of_64_bits_may_differ_in_their_last_digits_and_those_of_32_may_not() -> None:
    identity, logged = Identity(), np.array([0.1, 0.2, 0.3])
    identity.add("champion", "double", logged, logged + np.array([0, 1e-14, 1e-9]))
    identity.add("champion", "single", logged, logged.astype(np.float32))
    double, single = (identity.compared[Whose("champion", name, False)] for name in ("double", "single"))
    assert (double.identical, double.close, double.different) == (1, 1, 1)
    assert (single.identical, single.close, single.different) == (0, 0, 3)


async def test_decisions_that_another_model_would_have_changed_are_counted_and_judged_by_their_labels() -> None:
    predictions, samples = history(400)
    registry = Registry(old=OLD, new=NEW)
    of_served, of_labelled = await replayed(
        replace(ASK, model="new"), registry, OneModel(SPEC, "new", NEW), sources_of(predictions, samples)
    )
    flipped = [p for p in predictions if p.score < 0.5 <= float(NEW.predict(np.array([p.features]))[0])]
    assert of_served.decisions.changes == {(0, 1): len(flipped)}
    example = of_served.decisions.examples[0]
    assert (example.served_label, example.replayed_label, example.replayed_by) == (0, 1, "new")
    assert example.event_id in {p.event_id for p in flipped}
    pairs = of_labelled.pairs
    assert isinstance(pairs, Pairs)
    ids = {p.event_id for p in flipped}
    right = sum(s.label for s in samples if s.event_id in ids)
    assert (pairs.better, pairs.worse) == (right, len(flipped) - right)


async def test_another_threshold_changes_decisions_and_evaluation_but_no_score() -> None:
    predictions, samples = history(300)
    changed = msgspec.structs.replace(SPEC, threshold=0.9)
    registry = Registry(old=OLD)
    of_served, of_labelled = await replayed(
        replace(ASK, changed=changed),
        registry,
        AsServed(SPEC, registry.library, registry.identity),
        sources_of(predictions, samples),
    )
    assert of_served.decisions.changes == {(1, 0): sum(0.5 <= p.score < 0.9 for p in predictions)}
    one, other = (reports[0].variants[0].figures for reports in of_labelled.reports)
    assert one.roc_auc == other.roc_auc
    assert (one.recall or 0) > (other.recall or 0)


async def test_only_events_of_the_span_are_replayed_by_their_own_time() -> None:
    predictions, samples = history(200)
    span = Span(DAWN_MS + 50_000, DAWN_MS + 150_000)
    registry = Registry(old=OLD)
    of_served, of_labelled = await replayed(
        replace(ASK, span=span),
        registry,
        AsServed(SPEC, registry.library, registry.identity),
        sources_of(predictions, samples),
    )
    assert (of_served.events, of_labelled.samples) == (100, 100)


async def test_records_of_other_features_are_counted_and_left_out() -> None:
    predictions, samples = history(20)
    predictions[3] = msgspec.structs.replace(predictions[3], features=(1.0, 2.0, 3.0))
    samples[4] = msgspec.structs.replace(samples[4], features=(1.0,))
    registry = Registry(old=OLD)
    of_served, of_labelled = await replayed(
        ASK, registry, AsServed(SPEC, registry.library, registry.identity), sources_of(predictions, samples)
    )
    assert (of_served.events, of_served.unusable) == (19, 1)
    assert (of_labelled.samples, of_labelled.unusable) == (19, 1)


async def test_a_corrected_label_takes_the_place_of_the_first_in_what_is_said_of_the_whole() -> None:
    predictions, samples = history(30)
    again = msgspec.structs.replace(samples[5], revision=1, replaces=samples[5].label, label=1 - samples[5].label)
    registry = Registry(old=OLD)
    _, of_labelled = await replayed(
        ASK, registry, AsServed(SPEC, registry.library, registry.identity), sources_of(predictions, [*samples, again])
    )
    assert of_labelled.pairs is not None
    labels = of_labelled.pairs.table.labels.tolist()
    assert len(labels) == 30
    assert labels[5] == again.label


async def test_drift_is_judged_in_both_worlds_each_by_its_own_settings() -> None:
    rows = rows_of(2_000)
    rows[1_000:, 0] *= 0.3
    predictions = [served(i, row, OLD) for i, row in enumerate(rows)]
    scores = OLD.predict(rows_of(2_000, seed=1))
    baseline = make_baseline(rows_of(2_000, seed=1), SPEC.features, {"score": scores}, bins=10)
    changed = msgspec.structs.replace(SPEC, drift=msgspec.structs.replace(SPEC.drift, only_counted=SPEC.features))
    registry = Registry(baseline=baseline, old=OLD)
    of_served, _ = await replayed(
        replace(ASK, changed=changed),
        registry,
        AsServed(SPEC, registry.library, registry.identity),
        sources_of(predictions),
    )
    served_world, instead = of_served.told
    assert of_served.drift_windows[0] == of_served.drift_windows[1] > 5
    assert {alert.kind for alert in served_world.alerts} == {"drift"}
    assert "a" in {alert.subject for alert in served_world.alerts}
    assert all("prediction" in alert.subject for alert in instead.alerts)
