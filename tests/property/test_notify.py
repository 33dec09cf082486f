"""Whatever sinks answer and whenever workers are lost, each alert is delivered, or is a dead letter that says why."""

import asyncio
import base64
from collections import Counter, defaultdict
from typing import NamedTuple
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from agents.notify import stage
from schemas.events import Alert
from schemas.wire import decode
from stores.sinks import LaterError, Undeliverable
from tests.notifying import TAKES, ScriptedSink, Step, Worker, World, alert_of, broker_away, in_world

ATTEMPTS = 3
ROOM = 4
ANSWERS = {"takes": TAKES, "slow": 3.0, "later": LaterError("away"), "refuses": Undeliverable("refused")}
GUEST = "guest"
DAY_S = 86_400.0
answers = st.sampled_from(sorted(ANSWERS))


class Life(NamedTuple):
    """What befalls one worker; `commits` says which of its commits fail, before or after they count."""

    seconds: float
    killed: bool
    with_guest: bool
    clock_off_s: float
    commits: list[str]
    arrivals: list[int]


arriving = st.lists(st.integers(0, 9), max_size=4)
lived = st.builds(
    Life,
    seconds=st.sampled_from([0.05, 0.15, 0.3, 1.0, 2.5, 7.0]),
    killed=st.booleans(),
    with_guest=st.booleans(),
    clock_off_s=st.sampled_from([0.0, 0.0, 900.0, -DAY_S]),
    commits=st.lists(st.sampled_from(["", "", "commit", "committed"]), max_size=4),
    arrivals=arriving,
)


@settings(deadline=None, max_examples=150)
@given(
    scripts=st.lists(st.lists(answers, max_size=12), min_size=2, max_size=3),
    arrivals=st.lists(st.integers(0, 9), min_size=1, max_size=9),
    lives=st.lists(lived, max_size=5),
    with_transactions=st.booleans(),
)
def test_every_alert_is_delivered_or_reported_and_seldom_twice(
    scripts: list[list[str]], arrivals: list[int], lives: list[Life], with_transactions: bool
) -> None:
    @in_world
    async def scenario(world: World) -> None:
        world.with_transactions = with_transactions
        for number, script in enumerate(scripts):
            steps: list[Step] = [ANSWERS[answer] for answer in script]
            world.sink(f"s{number}" if number else GUEST, *steps, attempts=ATTEMPTS)
        await asyncio.sleep(DAY_S)
        sinks, raised, kills = dict(world.sinks), set(arrivals), 0
        world.raise_alerts(*map(alert_of, arrivals))
        for each in lives:
            await live(world, sinks, each)
            kills += each.killed
            raised.update(each.arrivals)
        world.sinks, world.clock_off_s = sinks, 0.0
        worker = Worker(world)
        await asyncio.sleep(120.0)
        assert worker.stage.state.lanes == {}
        await worker.end()
        check(world, {f"a{number}" for number in raised}, kills)

    with patch.object(stage, "WAITING", ROOM):
        scenario()


async def live(world: World, sinks: dict[str, ScriptedSink], life: Life) -> None:
    """Let one worker live."""
    failures = iter(life.commits)

    async def wait(point: str) -> None:
        await asyncio.sleep(0)
        if point in ("commit", "committed") and next(failures, "") == point:
            raise broker_away()

    world.sinks = {name: sink for name, sink in sinks.items() if life.with_guest or name != GUEST}
    world.clock_off_s = life.clock_off_s
    worker = Worker(world, wait)
    world.raise_alerts(*map(alert_of, life.arrivals))
    await asyncio.sleep(life.seconds)
    await worker.end(0.0 if life.killed else 30.0)


def check(world: World, alerts: set[str], kills: int) -> None:
    """Compare what sinks got and what is reported with the alerts that were raised."""
    reported: dict[str, Counter[str]] = defaultdict(Counter)
    for letter in world.letters:
        name = letter.message.split()[1].rstrip(":")
        reported[name][decode(Alert, base64.b64decode(letter.original_base64)).id] += 1
    for name, sink in world.sinks.items():
        got, tried = Counter(sink.got), Counter(alert for _, alert in sink.tried)
        assert all(count <= ATTEMPTS for count in tried.values())
        told = got.keys() | reported[name].keys()
        assert tried.keys() <= told <= alerts
        assert name == GUEST or told == alerts  # none is lost, of a sink that was there all the time
        assert (got + reported[name]).total() - len(told) <= kills * (1 if world.with_transactions else 2)
