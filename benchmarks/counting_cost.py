"""What counting costs the score stage: the same batches with a baseline and without, in one process.

Both stages read, score, encode and save each batch as a worker's task does; they take turns, and who begins changes
from batch to batch. Of several times the shortest counts, because others use the machine as well.
"""

import asyncio
import time
from collections.abc import Sequence
from statistics import median
from typing import Final, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from agents.baselines import Yardstick, baseline_of_rows
from agents.counting import Counting
from agents.registering import describe_model
from agents.score import Score
from agents.serving import Served
from benchmarks import histogram_checker, synthetic
from benchmarks.histogram_checker import Scale
from ml.drift.baseline import Baseline
from ml.drift.counting import Counter
from ml.models.xgboost_model import XGBoostModel
from schemas.drift import PartialHistogram
from schemas.events import Deployment
from schemas.features import FeatureReader
from schemas.streams import DriftSpec, StreamSpec
from stream.batches import Batch, Outbox, TopicPartition
from stream.deadletters import DeadLetterGate
from stream.intake import FeatureIntake
from stream.metric_values import Metrics
from stream.placement import Placement
from topics.specs import StreamTopics

_SPEC: Final = StreamSpec(name=synthetic.STREAM, features=synthetic.FEATURES)
_TOPICS: Final = StreamTopics(_SPEC.name)
_SOURCE: Final = TopicPartition(_TOPICS.features, 0)
_NOW_MS: Final = 1_700_000_000_000
_WINDOW_EVENTS: Final = 1_000
_TRIES: Final = 5
_BASELINE_ROWS: Final = 20_000


class Cost(NamedTuple):
    """Microseconds per event: of the stage without a baseline, and what counting adds; and how counts differ."""

    score_us: float
    count_us: float
    differences: list[str]


class CountingCost:
    """Two score stages that differ in their baseline only."""

    def __init__(self, seed: int, trees: int = 100) -> None:
        self._booster = synthetic.train(seed, trees)
        payload = bytes(self._booster.save_raw("ubj"))
        model = XGBoostModel.load(payload)
        version = describe_model(_SPEC, payload, "xgboost", "bench", _NOW_MS)
        rows = synthetic.draw(_BASELINE_ROWS, seed).astype(np.float32)
        self._baseline = Baseline.decode(baseline_of_rows(_SPEC, model, rows))
        deployment = Deployment(
            stream=_SPEC.name,
            revision=1,
            champion=version.model_id,
            changed_time_ms=_NOW_MS,
            changed_by="bench",
            correlation_id="bench",
        )
        yardstick = Yardstick("0" * 64, self._baseline, Counter(self._baseline))
        self._stages = [
            _stage(Served(model, version, deployment)),
            _stage(Served(model, version, deployment, yardstick=yardstick)),
        ]
        self._seed = seed + 1

    def measure(self, batches: int, rows: int) -> Cost:
        """Let both stages have `batches` batches of `rows` rows; takes about 0.3 ms per row of each batch."""
        values = synthetic.draw(batches * rows, self._seed)
        documents = list(synthetic.documents(values))
        score_us, added_us, partials = [], [], []
        for number in range(batches):
            first = number * rows
            batch = Batch(
                _SOURCE, [_Record(first + i, _NOW_MS, *each) for i, each in enumerate(documents[first : first + rows])]
            )
            taken_s, written = asyncio.run(self._compare(batch, plain_first=number % 2 == 0))
            score_us.append(taken_s[0] / rows * 1e6)
            added_us.append((taken_s[1] - taken_s[0]) / rows * 1e6)
            partials += written
        return Cost(median(score_us), median(added_us), self._differences(values, partials))

    async def _compare(self, batch: Batch, *, plain_first: bool) -> tuple[list[float], list[PartialHistogram]]:
        """Return the shortest time of each stage, and the partials of the last time."""
        order = (0, 1) if plain_first else (1, 0)
        shortest, written = [float("inf")] * 2, Outbox()
        for _ in range(_TRIES):
            for which in order:
                outbox = Outbox()
                began = time.perf_counter()
                await self._stages[which].process(batch, outbox)
                await self._stages[which].save(outbox)
                shortest[which] = min(shortest[which], time.perf_counter() - began)
                written = outbox if which else written
        decode = msgspec.json.Decoder(PartialHistogram).decode
        return shortest, [decode(value) for _, value in written.targets.get(TopicPartition(_TOPICS.histograms, 0), [])]

    def _differences(self, values: NDArray[np.float64], partials: Sequence[PartialHistogram]) -> list[str]:
        scores = np.array(list(synthetic.expected_scores(self._booster, values).values()), dtype=np.float32)
        scales = [Scale(column.name, column.edges, column.mean, column.deviation) for column in self._baseline.columns]
        return [
            *histogram_checker.count_differences(scales, partials, [*values.astype(np.float32).T, scores]),
            *histogram_checker.cover_differences(partials, {0: len(values)}),
        ]


class _Record(NamedTuple):
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None


class _Serving:
    """As much of a Serving as the stage asks."""

    def __init__(self, served: Served) -> None:
        self.spec = _SPEC
        self._served = served

    async def ready(self) -> Served:
        return self._served


def _stage(served: Served) -> Score:
    metrics = Metrics()
    return Score(
        _Serving(served),  # type: ignore[arg-type]
        FeatureIntake(FeatureReader(_SPEC), Placement(_TOPICS.features, 0, 1), 1_000_000),
        Counting(_SPEC, DriftSpec(window_events=_WINDOW_EVENTS), 0, metrics),
        DeadLetterGate(1.0, 10_000),
        metrics,
        lambda: _NOW_MS,
    )
