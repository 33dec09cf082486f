"""Whatever sinks answer and whenever workers are lost, each alert is delivered, or is a dead letter that says why."""

import asyncio
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from stores.sinks import LaterError, Undeliverable
from tests.notifying import TAKES, Step, Worker, World, alert_of, in_world

ATTEMPTS = 3
ANSWERS = {"takes": TAKES, "slow": 3.0, "later": LaterError("away"), "refuses": Undeliverable("refused")}
answers = st.sampled_from(sorted(ANSWERS))


@settings(deadline=None, max_examples=150)
@given(
    scripts=st.lists(st.lists(answers, max_size=12), min_size=1, max_size=3),
    arrivals=st.lists(st.integers(0, 6), min_size=1, max_size=5),
    lives_s=st.lists(st.sampled_from([0.05, 0.15, 0.3, 1.0, 2.5, 7.0]), max_size=5),
    killed=st.lists(st.booleans(), min_size=5, max_size=5),
    with_transactions=st.booleans(),
)
def test_every_alert_is_delivered_or_reported_and_seldom_twice(
    scripts: list[list[str]],
    arrivals: list[int],
    lives_s: list[float],
    killed: list[bool],
    with_transactions: bool,
) -> None:
    @in_world
    async def scenario(world: World) -> None:
        world.with_transactions = with_transactions
        for number, script in enumerate(scripts):
            steps: list[Step] = [ANSWERS[answer] for answer in script]
            world.sink(f"s{number}", *steps, attempts=ATTEMPTS)
        for number in arrivals:
            world.raise_alerts(alert_of(number))
        kills = 0
        for life_s, is_killed in zip(lives_s, killed, strict=False):
            worker = Worker(world)
            await asyncio.sleep(life_s)
            await worker.end(0.0 if is_killed else 30.0)
            kills += is_killed
        worker = Worker(world)
        await asyncio.sleep(120.0)
        assert worker.stage.state.lanes == {}
        await worker.end()
        check(world, {f"a{number}" for number in arrivals}, kills)

    scenario()


def check(world: World, alerts: set[str], kills: int) -> None:
    """Compare what sinks got and what is reported with the alerts that were raised."""
    reported = Counter(letter.message.split()[1].rstrip(":") for letter in world.letters)
    for name, sink in world.sinks.items():
        got, tried = Counter(sink.got), Counter(alert for _, alert in sink.tried)
        assert got.keys() <= alerts
        assert all(count <= ATTEMPTS for count in tried.values())
        assert len(got) + reported[name] >= len(alerts)  # none is lost
        twice = sum(count - 1 for count in got.values()) + (len(got) + reported[name] - len(alerts))
        assert twice <= kills * (1 if world.with_transactions else 2)
