"""Evaluation equals a batch recomputation over the same samples, however they were cut and wherever the stage died."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from river import metrics as river
from scipy.stats import rankdata
from scipy.stats import t as student

from agents.evaluate import Evaluate
from ml.evaluation import windows
from schemas.events import Performance, Sample, ShadowScore, VariantPerformance
from schemas.streams import EvaluationSpec, JoinSpec, StreamSpec, Task
from schemas.wire import decode, encode
from stream.batches import Batch, Outbox, TopicPartition
from stream.metric_values import Metrics
from tests.support import Entry, LogMemory, memory_blobs, sample_of

MINUTE = 60_000
BIRDS = ("owl", "tit", "jay")
SOURCE = TopicPartition("s.samples", 0)


async def _run(
    spec: StreamSpec, records: Sequence[Entry], cuts: Sequence[int], ends: Sequence[str]
) -> list[tuple[TopicPartition, bytes]]:
    """Return what is committed, topic by topic. After each cut the stage goes on, commits, or dies and opens again."""
    memory = LogMemory({SOURCE: list(records)})
    stage = Evaluate(spec, memory, memory_blobs(), Metrics(), save_samples=40)
    await stage.open({SOURCE: 0})
    done, position, at, turn = [], 0, 0, 0
    pending: list[tuple[TopicPartition, bytes]] = []
    while at < len(records):
        piece = records[at : at + cuts[turn % len(cuts)]]
        end = ends[turn % len(ends)] if turn < 200 else "commit"  # or it might die for ever
        turn += 1
        outbox = Outbox()
        await stage.process(Batch(SOURCE, piece), outbox)
        at += len(piece)
        if end == "commit" or at == len(records):
            await stage.save(outbox)
            memory.commit(outbox)
        pending += [(target, value) for target, found in outbox.targets.items() for _, value in found]
        if end == "commit" or at == len(records):
            done += pending
            position, pending = at, []
        elif end == "die":
            pending, at = [], position
            await stage.open({SOURCE: records[at].offset})
    return sorted(done, key=lambda written: written[0])


@dataclass
class Naive:
    """One sample at a time, everything kept, figures from scratch."""

    spec: StreamSpec
    found: list[Performance] = field(default_factory=list)
    windows: dict[int, dict[str, Any]] = field(default_factory=dict)
    event_head: int = 0
    label_head: int = 0
    counted: int = 0

    def take(self, sample: Sample) -> None:
        span = self.spec.evaluation.window_minutes * MINUTE
        number = sample.event_time_ms // span if span else self.counted // self.spec.evaluation.window_samples
        if sample.revision:
            here = [w for w in self.windows.values() if sample.event_id in w["events"]]
            if here:
                here[0]["events"][sample.event_id].append(sample)
        elif not span or number >= self._ripe():
            self.counted += 1
            window = self.windows.setdefault(number, {"number": number, "events": {}, "looked": False})
            window["events"][sample.event_id] = [sample]
        before = self.event_head // span if span else 0
        self.event_head = max(self.event_head, sample.event_time_ms)
        self.label_head = max(self.label_head, sample.label_time_ms)
        moved = not span or self.event_head // span > before
        for window in sorted(self.windows.values(), key=lambda window: window["number"]):
            self._look(window, span, moved)

    def _ripe(self) -> int:
        span = self.spec.evaluation.window_minutes * MINUTE
        return max(0, min((self.label_head - self._ripens()) // span, self.event_head // span))

    def _ripens(self) -> int:
        maturity = self.spec.evaluation.maturity_minutes
        assert maturity is not None
        return (maturity + self.spec.join.lateness_minutes) * MINUTE

    def _look(self, window: dict[str, Any], span: int, moved: bool) -> None:
        first = [samples[0] for samples in window["events"].values()]
        if span:
            start, end = window["number"] * span, (window["number"] + 1) * span
            closed, mature = end <= self.event_head, window["number"] < self._ripe()
        else:
            start, end = min(s.event_time_ms for s in first), max(s.event_time_ms for s in first) + 1
            closed = len(first) == self.spec.evaluation.window_samples
            mature = closed and end - 1 + self._ripens() <= self.label_head
        if mature:
            del self.windows[window["number"]]
        elif window["looked"] or not closed or not moved:
            return
        window["looked"] = True
        self.found.append(
            Performance(
                stream="s",
                window="time" if span else "count",
                number=window["number"],
                from_time_ms=start,
                to_time_ms=end,
                mature=mature,
                variants=tuple(self._variants(list(window["events"].values()))),
            )
        )

    def _variants(self, events: list[list[Sample]]) -> list[VariantPerformance]:
        served = {
            name: [(samples, s.model_id, s.score, s.scores) for samples in events if (s := samples[0]).variant == name]
            for name in ("champion", "b")
        }
        shadow = [(samples, s.model_id, s.score, s.scores) for samples in events for s in samples[0].shadows]
        models = {name: _newest_two([model_id for _, model_id, *_ in rows]) for name, rows in served.items()}
        if models["champion"] and len(models["b"]) == 2 and models["b"][0] in models["champion"]:
            models["b"] = [model_id for model_id in models["b"] if model_id not in models["champion"]] or models["b"]
        models["online"] = [shadow[-1][1]] if shadow else []
        return [
            VariantPerformance(variant=name, model_id=models[name][0], **_figures(self.spec, rows, name == "champion"))
            for name, rows in (*served.items(), ("online", shadow))
            if rows
        ]


def _newest_two(models: list[str]) -> list[str]:
    newest = list(reversed(models))
    return newest[:1] + [model for model in newest if model != newest[0]][:1]


def _figures(spec: StreamSpec, rows: list[Any], with_latency: bool) -> dict[str, Any]:
    names: tuple[int | str, ...] = spec.classes or (0, 1)
    labels = np.array([names.index(samples[-1].label) for samples, *_ in rows])
    delays = [samples[0].label_time_ms - samples[0].event_time_ms for samples, *_ in rows]
    latencies = [samples[0].latency_ms for samples, *_ in rows] if with_latency else []
    scores = np.array([row[3] if spec.classes else row[2] for row in rows])
    predicted = scores.argmax(axis=1) if spec.classes else (scores >= spec.threshold).astype(int)
    decided = _macro(labels, predicted) if spec.classes else _binary(labels, predicted)
    ranked = scores.T if spec.classes else [scores]
    aucs = [_auc(column, labels == (k if spec.classes else 1)) for k, column in enumerate(ranked)]
    aucs = [auc for auc in aucs if auc is not None]
    return {
        "n": len(rows),
        "assumed": sum(samples[0].assumed for samples, *_ in rows),
        "revised": sum(len(samples) > 1 for samples, *_ in rows),
        "accuracy": float((labels == predicted).mean()),
        **decided,
        "roc_auc": float(np.mean(aucs)) if aucs else None,
        **_delong(scores, labels == 1, spec),
        "log_loss": None if spec.task == "anomaly" else _log_loss(scores, labels),
        "calibration_error": None if spec.task == "anomaly" else _calibration_error(scores, labels, predicted),
        "latency_p50_ms": _quantile(latencies, 0.5),
        "latency_p99_ms": _quantile(latencies, 0.99),
        "label_delay_p50_ms": _quantile(delays, 0.5),
        "label_delay_p95_ms": _quantile(delays, 0.95),
    }


def _binary(labels: Any, predicted: Any) -> dict[str, float | None]:
    """River's figures; where river says 0 for want of a denominator, None."""
    made = {"precision": river.Precision(), "recall": river.Recall(), "f1": river.F1()}
    for y, guess in zip(labels.tolist(), predicted.tolist(), strict=True):
        for metric in made.values():
            metric.update(y, guess)
    positives, negatives, alarms = labels.sum(), (1 - labels).sum(), predicted.sum()
    found = {name: metric.get() for name, metric in made.items()}
    return {
        "precision": found["precision"] if alarms else None,
        "recall": found["recall"] if positives else None,
        "f1": found["f1"] if alarms or positives else None,
        "specificity": (1 - predicted)[labels == 0].mean() if negatives else None,
        "false_positive_rate": predicted[labels == 0].mean() if negatives else None,
        "false_negative_rate": (1 - predicted)[labels == 1].mean() if positives else None,
    }


def _macro(labels: Any, predicted: Any) -> dict[str, float | None]:
    each = [_binary((labels == k).astype(int), (predicted == k).astype(int)) for k in np.unique(labels)]
    for one in each:
        one["precision"] = one["precision"] or 0.0
    means = {}
    for name in each[0]:
        known = [value for one in each if (value := one[name]) is not None]
        means[name] = float(np.mean(known)) if known else None
    return means


def _auc(scores: Any, positive: Any) -> float | None:
    p, n = int(positive.sum()), int((~positive).sum())
    return float((rankdata(scores)[positive].sum() - p * (p + 1) / 2) / (p * n)) if p and n else None


def _delong(scores: Any, positive: Any, spec: StreamSpec) -> dict[str, float | None]:
    """The interval by the kernel of every pair, as DeLong has it; none of several classes."""
    nothing: dict[str, float | None] = {"roc_auc_low": None, "roc_auc_high": None}
    if spec.classes or min(positive.sum(), (~positive).sum()) < 2:
        return nothing
    pairs = scores[positive][:, np.newaxis] - scores[~positive]
    kernel = np.where(pairs > 0, 1.0, np.where(pairs == 0, 0.5, 0.0))
    area, sizes = kernel.mean(), kernel.shape
    variance = kernel.mean(axis=1).var(ddof=1) / sizes[0] + kernel.mean(axis=0).var(ddof=1) / sizes[1]
    if variance < 1e-12:
        return nothing
    half = student.ppf(0.975, min(sizes) - 1) * math.sqrt(variance) / (area * (1 - area))
    ends = 1 / (1 + np.exp(-(math.log(area / (1 - area)) + np.array([-half, half]))))
    return {"roc_auc_low": ends[0], "roc_auc_high": ends[1]}


def _log_loss(scores: Any, labels: Any) -> float:
    given_label = scores[np.arange(len(labels)), labels] if scores.ndim == 2 else np.where(labels, scores, 1 - scores)
    return float(np.mean([-math.log(max(likely, 1e-15)) for likely in given_label]))


def _calibration_error(scores: Any, labels: Any, predicted: Any) -> float:
    confidence, hits = (scores.max(axis=1), labels == predicted) if scores.ndim == 2 else (scores, labels == 1)
    bins = np.minimum((confidence * 15).astype(int), 14)
    gaps = [abs(hits[bins == b].sum() - confidence[bins == b].sum()) for b in range(15)]
    return float(sum(gaps) / len(labels))


def _quantile(times: list[int], share: float) -> float | None:
    return float(np.quantile(times, share, method="inverted_cdf")) if times else None


def _log(task: Task, seed: int, n: int) -> list[Entry]:
    """Return a samples log: labels of several delays, some corrected, shadows for a while, gaps in offsets.

    At first all are served by the champion, then some by another variant, then all by that one, and so on. Every fourth
    of that one's gets the score of the champion's model.
    """
    rng = np.random.default_rng(seed)
    made: list[tuple[float, Sample]] = []
    for i in range(n):
        time = int(1_000 * MINUTE + i * MINUTE + rng.integers(-5, 6) * MINUTE)
        delay = int(rng.choice([0, MINUTE, 9 * MINUTE, 30 * MINUTE]))
        label: Any = BIRDS[rng.integers(3)] if task == "multiclass" else int(rng.random() < 0.4)
        order = i + delay / MINUTE
        sample = sample_of(
            i,
            event_time_ms=time,
            label_time_ms=time + delay,
            label=label,
            **_scores(rng, task),
            model_id=f"b{i // 70}" if (variant := _variant_at(i)) == "b" and i % 4 else f"m{i // 50}",
            variant=variant,
            latency_ms=int(rng.integers(0, 500)),
            shadows=()
            if i % 90 > 60
            else (ShadowScore(variant="online", model_id=f"o{i // 30}", **_scores(rng, task)),),
            assumed=task == "binary" and label == 0 and rng.random() < 0.2,
        )
        made.append((order, sample))
        for revision in range(1, 1 + int(rng.choice([0, 0, 0, 1, 2]))):
            after: Any = BIRDS[rng.integers(3)] if task == "multiclass" else int(rng.random() < 0.5)
            order += 1 + float(rng.choice([0.5, 3, 80]))
            later_ms = sample.label_time_ms + revision
            changes = {"revision": revision, "replaces": label, "label": after, "label_time_ms": later_ms}
            made.append((order, msgspec.structs.replace(sample, **changes)))
            label = after
    made.sort(key=lambda one: one[0])
    return [Entry(3 * i, encode(sample), b"s", i) for i, (_, sample) in enumerate(made)]


def _variant_at(i: int) -> str:
    return "b" if i // 30 % 3 == 2 or (i // 30 % 3 == 1 and i % 3) else "champion"


def _scores(rng: np.random.Generator, task: Task) -> dict[str, Any]:
    if task == "multiclass":
        scores = rng.dirichlet(np.ones(3)).tolist()
        return {"score": max(scores), "scores": scores}
    if task == "anomaly":
        return {"score": round(rng.normal(0, 50), 1)}
    return {"score": float(rng.choice([rng.random(), rng.random() * 1e-3, 0.0, 1.0, 0.5]))}


def _spec(task: Task, by_time: bool, maturity: int) -> StreamSpec:
    return StreamSpec(
        name="s",
        features=("a",),
        task=task,
        classes=BIRDS if task == "multiclass" else (),
        join=JoinSpec(window_minutes=40, lateness_minutes=5),
        evaluation=EvaluationSpec(
            window_samples=25, window_minutes=20 if by_time else 0, maturity_minutes=maturity, min_samples=5
        ),
    )


LOGS = {
    "task": st.sampled_from(["binary", "multiclass", "anomaly"]),
    "by_time": st.booleans(),
    "maturity": st.sampled_from([0, 15, 40]),
    "seed": st.integers(0, 2**32 - 1),
    "n": st.integers(1, 200),
}


@settings(max_examples=60, deadline=None)
@given(**LOGS)
def test_performance_is_what_a_recomputation_from_scratch_gives(
    task: Task, by_time: bool, maturity: int, seed: int, n: int
) -> None:
    spec = _spec(task, by_time, maturity)
    records = _log(task, seed, n)
    written = asyncio.run(_run(spec, records, [17], ["commit"]))
    found = [decode(Performance, value) for target, value in written if target.topic == "s.performance"]
    naive = Naive(spec)
    for record in records:
        naive.take(decode(Sample, record.value))
    assert len(found) == len(naive.found)
    for mine, exact in zip(found, naive.found, strict=True):
        _compare(mine, exact)


def _compare(mine: Performance, exact: Performance) -> None:
    for name in ("window", "number", "from_time_ms", "to_time_ms", "mature"):
        assert getattr(mine, name) == getattr(exact, name), name
    assert [(v.variant, v.model_id) for v in mine.variants] == [(v.variant, v.model_id) for v in exact.variants]
    for variant, expected in zip(mine.variants, exact.variants, strict=True):
        for name in expected.__struct_fields__[2:]:
            value, right = getattr(variant, name), getattr(expected, name)
            if right is None:
                assert value is None, name
            else:  # times are told by bins of 1/128, to the microsecond
                tolerance = right / 128 + 0.0005 if name.endswith("_ms") else 1e-8
                assert value == pytest.approx(right, rel=1e-8, abs=tolerance), name


@settings(max_examples=60, deadline=None)
@given(
    **LOGS,
    room_bytes=st.sampled_from([windows.MAX_WAITING_BYTES, 9_000]),
    cuts=st.lists(st.integers(1, 60), min_size=1, max_size=8),
    ends=st.lists(st.sampled_from(["go on", "commit", "commit", "die"]), min_size=1, max_size=8),
)
def test_cuts_and_restarts_leave_no_trace(
    task: Task, by_time: bool, maturity: int, seed: int, n: int, room_bytes: int, cuts: list[int], ends: list[str]
) -> None:
    spec = _spec(task, by_time, maturity)
    records = _log(task, seed, n)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(windows, "MAX_WAITING_BYTES", room_bytes)
        whole = asyncio.run(_run(spec, records, [len(records)], ["commit"]))
        assert asyncio.run(_run(spec, records, cuts, ends)) == whole
