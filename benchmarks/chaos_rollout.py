"""The chaos run of rollouts: a better model goes to all traffic by itself and a worse one back, however often a worker
dies.

The demo's flights are replayed over and over. The champion knows January only. After the two rollouts nothing dies any
more, and roll-backs are timed.
"""

import argparse
import contextlib
import random
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from app.demo.flights import STREAM, load_flights
from app.stream_init import stream_toml
from benchmarks.chaos_learn import owns, until_committed
from benchmarks.chaos_score import producing, shown
from benchmarks.faults import SESSION_TIMEOUT_S, Duty, Scene
from benchmarks.plain import Kafka
from benchmarks.recovery import watch
from benchmarks.rollout_models import Models, rollout_stream, save_models
from benchmarks.rollout_outcome import Outcome
from benchmarks.rollout_story import LONGEST_PAUSE_S, Effect, Routes, rollout, timed
from benchmarks.workers import Penstock, Worker
from tests.kafka.server import KafkaServer
from topics.specs import StreamTopics

_TOPICS: Final = StreamTopics(STREAM)
_ROLLBACKS: Final = 5
_MOST_ROLLBACK_S: Final = 2.0


def play(arguments: argparse.Namespace, tell: Callable[[str], None]) -> tuple[bool, dict[str, Any]]:
    """Strike two workers while two models are rolled out; return whether all went as it should, and the figures."""
    spec = rollout_stream()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="penstock-chaos-")))
        server = stack.enter_context(KafkaServer())
        cluster = Kafka(server.bootstrap)
        tell("Apache Kafka runs; training three models and deploying the one of January")
        models = save_models(load_flights(), folder, seed=arguments.seed)
        settings = {"kafka_session_timeout_ms": int(SESSION_TIMEOUT_S * 1000)}
        penstock = stack.enter_context(Penstock(folder, server.bootstrap, stream_toml(spec), **settings))
        penstock.run("topics", "apply")
        names = _deployed(penstock, models)
        story = _Story(penstock, cluster, names)
        with watch(server.bootstrap, {_TOPICS.predictions: shown}, spec.partitions) as recoveries:
            rng = random.Random(arguments.seed)
            scene = Scene(server, penstock, recoveries, rng, tell, _duties(), roles=["score", "join", "learn"])
            scene.start()
            tell("two workers with all roles are ready")
            words = [cluster.bootstrap, str(folder / "journal"), str(arguments.rate)]
            with producing("benchmarks.rollout_producer", *words):
                try:
                    story.play(scene, arguments.kills, arguments.only_kills, tell)
                except TimeoutError as late:  # what has not happened by then is found to be missing
                    tell(str(late))
            with contextlib.suppress(TimeoutError):
                until_committed(cluster, "penstock-score", _TOPICS.features)
            scene.stop()
        tell("drained; counting")
        outcome = Outcome(cluster, folder / "journal", names, _ROLLBACKS, arguments.plant)
    return outcome.right and story.quick, {
        **outcome.as_dict(),
        **story.as_dict(),
        "kills_by_duty": dict(scene.struck),
        "recovery_p50_s": recoveries.percentiles_s("kill")["p50"],
        **recoveries.as_dict(),
    }


class _Story:
    """Two rollouts with kills, then roll-backs without, and what came of them."""

    def __init__(self, penstock: Penstock, cluster: Kafka, names: dict[str, str]) -> None:
        self._penstock = penstock
        self._cluster = cluster
        _, self._better, self._worse = names
        self._kills: dict[str, int] = {}
        self._effects: list[Effect] = []

    def play(self, scene: Scene, kills: int, only_kills: bool, tell: Callable[[str], None]) -> None:
        """Roll out the better model, then the worse one, and kill `kills` times at least; then time roll-backs.

        In the middle of the first, unless `only_kills`, everything is restarted. Raises TimeoutError when something
        does not come to its end.
        """
        scene.settle()
        routes = Routes(self._cluster.bootstrap)
        try:
            once = None if only_kills else scene.restart_everything
            self._kills["better"] = rollout(self._penstock, routes, scene, self._better, once)
            self._kills["worse"] = rollout(self._penstock, routes, scene, self._worse, None)
        finally:
            routes.close()
        self._kills["after"] = max(0, kills - sum(self._kills.values()))
        for number in range(self._kills["after"]):
            scene.strike(f"kill {number + 1} after both rollouts", LONGEST_PAUSE_S)
        scene.settle()
        tell("nothing dies any more; rolling back")
        for _ in range(_ROLLBACKS):
            self._effects.append(timed(self._penstock, self._cluster, "models", "rollback", "--stream", STREAM))
            timed(self._penstock, self._cluster, "models", "promote", self._better, "--stream", STREAM)

    @property
    def quick(self) -> bool:
        """Whether every roll-back has taken effect within two seconds."""
        return bool(self._effects) and max(effect.since_command_s for effect in self._effects) < _MOST_ROLLBACK_S

    def as_dict(self) -> dict[str, Any]:
        """Return the kills, and the seconds of the slowest roll-back and of the middle one."""
        told: dict[str, Any] = {"kills": sum(self._kills.values()), "kills_by_rollout": self._kills}
        if self._effects:
            columns = {name: [getattr(effect, name) for effect in self._effects] for name in Effect._fields}
            middle = {name: round(statistics.median(seconds), 3) for name, seconds in columns.items()}
            told |= {"rollback_s": round(max(columns["since_command_s"]), 3), "rollback_p50": middle}
        return told


def _deployed(penstock: Penstock, models: Models) -> dict[str, str]:
    """Register the models and make the one of January the champion; return what each is called, by its id."""
    champion = penstock.deploy(STREAM, models.january)
    others = [
        penstock.run("models", "register", "--stream", STREAM, "--file", str(path))["model_id"]
        for path in (models.better, models.worse)
    ]
    return dict(zip((champion, *others), Models._fields, strict=True))


def _duties() -> list[Duty]:
    """Return what is struck in turn: scoring, comparing, and control, which has something to do at times only."""
    scores = Duty("score", owns("penstock-score"), _commits("score"))
    compares = Duty("compare", owns("penstock-compare"), _commits("compare"))
    controls = Duty("control", owns("penstock-learn"), lambda worker: worker.ready())
    return [scores, compares, controls]


def _commits(stage: str) -> Callable[[Worker], bool]:
    return lambda worker: worker.metric("ml_commit_seconds_count", stage=stage) > 0
