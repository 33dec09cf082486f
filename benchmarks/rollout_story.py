"""What happens in a chaos run of rollouts: two rollouts under kills, then roll-backs whose effect is timed."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import msgspec

from app.demo.flights import STREAM
from benchmarks.faults import Scene
from benchmarks.plain import Follower, Kafka, until
from benchmarks.recovery import now_ms
from benchmarks.workers import Penstock
from schemas.events import Deployment
from schemas.experiments import BUCKETS
from topics.specs import StreamTopics

_TOPICS: Final = StreamTopics(STREAM)
LONGEST_PAUSE_S: Final = 3.0
_KILLS_BEFORE_ONCE: Final = 2
_ROLLOUT_TIMEOUT_S: Final = 240.0
_EFFECT_TIMEOUT_S: Final = 30.0
_POLL_S: Final = 0.02


class _Command(msgspec.Struct):
    action: str


class _Prediction(msgspec.Struct):
    deployment_revision: int


class Effect(NamedTuple):
    """How many seconds after a command every partition showed a reader of committed records its effect.

    `since_command_s` is from the command's record in Kafka to the last partition's first prediction under the new
    revision, `first_s` to that of the first partition; `since_start_s` is from the start of the CLI to the last one's.
    """

    since_command_s: float
    first_s: float
    since_start_s: float


class Routes:
    """The newest deployment, as a reader of the log sees it."""

    def __init__(self, bootstrap: str) -> None:
        self._follower = Follower(bootstrap, _TOPICS.deployments)
        self._decode = msgspec.json.Decoder(Deployment).decode
        self._newest: Deployment | None = None

    def reached(self, revision: int) -> bool:
        """Whether the log shows this revision, or a later one."""
        newest = self._poll()
        return newest is not None and newest.revision >= revision

    def tried_share(self) -> float | None:
        """Return the challenger's share while there is a rollout."""
        newest = self._poll()
        if newest is None or newest.experiment is None:
            return None
        return newest.experiment.variants[-1].buckets / BUCKETS

    def _poll(self) -> Deployment | None:
        while rows := self._follower.poll(0.2):
            self._newest = self._decode(rows[-1].value or b"")
        return self._newest

    def close(self) -> None:
        """Close the connections."""
        self._follower.close()


def rollout(penstock: Penstock, routes: Routes, scene: Scene, model_id: str, once: Callable[[], None] | None) -> int:
    """Start a rollout and kill workers until it is over; return how often.

    `once` happens in between, after the second kill. Raises TimeoutError when the rollout takes over 4 minutes.
    """
    answer = penstock.run("rollouts", "start", model_id, "--stream", STREAM)
    until(lambda: routes.reached(answer["revision"]), "the rollout to be in the deployments", _EFFECT_TIMEOUT_S)
    deadline_s, kills = time.monotonic() + _ROLLOUT_TIMEOUT_S, 0
    while (share := routes.tried_share()) is not None:
        if time.monotonic() > deadline_s:
            raise TimeoutError(f"the rollout of {model_id} is not over after {_ROLLOUT_TIMEOUT_S:.0f} s")
        scene.strike(f"{model_id} has {share:.0%}; kill {kills + 1} of its rollout", LONGEST_PAUSE_S)
        kills += 1
        if once is not None and kills == _KILLS_BEFORE_ONCE:
            scene.settle()
            once()
    return kills


def timed(penstock: Penstock, cluster: Kafka, *words: str) -> Effect:
    """Run a command that changes the routing while events flow, and time its effect on every partition."""
    follower = Follower(cluster.bootstrap, _TOPICS.predictions, from_end=True)
    decode = msgspec.json.Decoder(_Prediction).decode
    newest: dict[int, int] = {}
    changed_ms: dict[int, int] = {}
    partitions = len(cluster.partitions(_TOPICS.predictions))

    def poll() -> None:
        for row in follower.poll(_POLL_S):
            revision = decode(row.value or b"").deployment_revision
            if revision > newest.setdefault(row.partition, revision):
                changed_ms.setdefault(row.partition, now_ms())

    def flows() -> bool:
        poll()
        return len(newest) == partitions

    def all_changed() -> bool:
        poll()
        return len(changed_ms) == partitions

    try:
        until(flows, "every partition to show predictions", _EFFECT_TIMEOUT_S, 0)
        with ThreadPoolExecutor(max_workers=1) as pool:
            started_ms = now_ms()
            running = pool.submit(penstock.run, *words)
            until(all_changed, f"the effect of {' '.join(words)}", _EFFECT_TIMEOUT_S, 0)
            running.result()
    finally:
        follower.close()
    sent_ms = _sent_ms(cluster, words[1])
    return Effect(
        since_command_s=(max(changed_ms.values()) - sent_ms) / 1000,
        first_s=(min(changed_ms.values()) - sent_ms) / 1000,
        since_start_s=(max(changed_ms.values()) - started_ms) / 1000,
    )


def _sent_ms(cluster: Kafka, action: str) -> int:
    """Return the timestamp of the newest command with this action."""
    decode = msgspec.json.Decoder(_Command).decode
    return [row.time_ms for row in cluster.read(_TOPICS.commands) if decode(row.value or b"").action == action][-1]
