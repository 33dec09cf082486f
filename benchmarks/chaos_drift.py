"""The chaos run of counting: partial histograms that add up to one pass over the events, however often a worker dies.

The number of workers grows from one to three while they score, count and judge. Each of the first kills strikes whoever
owns partitions then.
"""

import argparse
import contextlib
import random
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks import drift_producer, synthetic
from benchmarks.chaos_learn import owns, until_committed
from benchmarks.chaos_score import deployed, producing, shown
from benchmarks.drift_outcome import Outcome
from benchmarks.faults import Duty, Scene
from benchmarks.plain import Kafka
from benchmarks.recovery import watch
from tests.kafka.server import KafkaServer
from topics.specs import StreamTopics

_TOPICS: Final = StreamTopics(synthetic.STREAM)
_BASELINE_ROWS: Final = 20_000
_LONGEST_PAUSE_S: Final = 3.0
_COUNTING: Final = Duty(
    "score", owns("penstock-score"), lambda worker: worker.metric("ml_drift_events_counted_total") > 0
)


def play(arguments: argparse.Namespace, tell: Callable[[str], None]) -> tuple[bool, dict[str, Any]]:
    """Strike one, two and three workers that count; return whether the partials are right, and the figures."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-chaos-")))
        server = stack.enter_context(KafkaServer())
        cluster = Kafka(server.bootstrap)
        tell("Apache Kafka runs; deploying a model with a baseline")
        rows = synthetic.save_rows(synthetic.draw(_BASELINE_ROWS, arguments.seed), folder / "rows.csv")
        penstock = stack.enter_context(deployed(folder, server, synthetic.CONFIG, arguments.seed, rows))
        with watch(server.bootstrap, {_TOPICS.predictions: shown}, synthetic.PARTITIONS) as recoveries:
            rng = random.Random(arguments.seed)
            scene = Scene(server, penstock, recoveries, rng, tell, [_COUNTING], roles=["score", "learn"])
            scene.add("worker-a")
            words = [_TOPICS.features, folder / "journal", arguments.events, arguments.rate, arguments.seed]
            with producing("benchmarks.drift_producer", cluster.bootstrap, *map(str, words)):
                more = [lambda: scene.add("worker-b"), lambda: scene.add("worker-c")]
                scene.play(arguments.kills, more, _LONGEST_PAUSE_S)
                tell("nothing more happens; the rest of the events")
            _drain(cluster, tell)
            scene.stop()
        tell("drained; counting")
        events = int((folder / "journal").read_text(encoding="utf-8"))
        values = drift_producer.draw(events, arguments.seed)
        outcome = Outcome(cluster, folder, arguments.plant)
        differences = {
            "predictions_match": outcome.predictions(synthetic.train(arguments.seed), values),
            "histograms_match": outcome.histograms(),
            "reports_match": outcome.reports(),
        }
        counted = outcome.as_dict()
    found = [f"{check}: {difference}" for check, flaws in differences.items() for difference in flaws]
    return not found, {
        "kills": arguments.kills,
        "events": events,
        **{check: not flaws for check, flaws in differences.items()},
        **counted,
        **({"differences": found} if found else {}),
        "recovery_p50_s": recoveries.percentiles_s("kill")["p50"],
        **recoveries.as_dict(),
    }


def _drain(cluster: Kafka, tell: Callable[[str], None]) -> None:
    """Wait until everything is committed, but not for ever: what is missing is then found to be so."""
    try:
        until_committed(cluster, "penstock-score", _TOPICS.features)
        until_committed(cluster, "penstock-judge", _TOPICS.histograms)
    except TimeoutError as late:
        tell(str(late))
