"""Both deliveries beside a broker that does what it is told to, good and bad."""

import asyncio
import gc
from collections.abc import Mapping

import pytest
from aiokafka import errors

from schemas.errors import RetryableError
from stream.batches import Outbox, Outgoing, TopicPartition
from stream.delivery import AtLeastOnce, ExactlyOnce
from stream.failures import is_retryable
from stream.writer import IN_FLIGHT
from tests.broker import OFFSETS, OUT, STATE, Broker, once, outbox_of
from tests.support import leap_through, now


@once
async def test_records_go_to_the_partition_they_name_in_order_and_in_batches_that_a_topic_takes(
    broker: Broker, delivery: ExactlyOnce
) -> None:
    sent = [Outgoing(b"%d" % i, b"x" * 300_000) for i in range(5)] + [Outgoing(None, b"y" * 2_000_000)]
    outbox = outbox_of(b"small")
    outbox.extend("dead", 1, sent)
    await delivery.send(outbox)
    await delivery.commit(Outbox(), OFFSETS)
    assert [records for target, records in broker.written if target == OUT] == [[Outgoing(b"key", b"small")]]
    dead = TopicPartition("dead", 1)
    large = [records for target, records in broker.written if target == dead]
    assert [record for records in large for record in records] == sent
    assert [len(records) for records in large] == [2, 2, 1, 1]
    assert broker.sequences["task", dead] == [0, 2, 4, 5]


@once
async def test_records_and_offsets_are_one_transaction_and_two_take_turns(
    broker: Broker, delivery: ExactlyOnce
) -> None:
    for number in range(3):
        await delivery.send(outbox_of(b"%d" % number))
        await delivery.commit(outbox_of(b"saved", target=STATE), OFFSETS)
    whole = ["group", "add", "produce", "add", "produce", "offsets", "commit"]
    again = ["group", "add", "produce", "produce", "offsets", "commit"]  # all partitions of the last time at once
    assert broker.asked == ["init", "init", *whole, *whole, *again]
    assert broker.details[2:9] == [
        "group task at 3",
        "add task out/3 at 3",
        "produce task out/3 at 1",
        "add task state/0 at 3",
        "produce task state/0 at 1",
        "offsets task in/0 at 4",
        "commit task at 3",
    ]
    assert {line.split()[1] for line in broker.details[9:16]} == {"task.b"}
    assert "add task out/3 state/0 at 3" in broker.details[16:]
    assert broker.sequences == {
        ("task", OUT): [0, 1],
        ("task", STATE): [0, 1],
        ("task.b", OUT): [0],
        ("task.b", STATE): [0],
    }


@once
async def test_a_partition_that_was_not_written_to_is_not_told_of_again(broker: Broker, delivery: ExactlyOnce) -> None:
    for number in range(5):
        await delivery.send(outbox_of(b"%d" % number, target=OUT if number else STATE))
        await delivery.commit(Outbox(), OFFSETS)
    added = [line for line in broker.details if line.startswith("add task ")]
    assert added == ["add task state/0 at 3", "add task state/0 at 3", "add task out/3 at 3", "add task out/3 at 3"]


@once
async def test_what_is_sent_during_a_commit_is_in_the_other_transaction(broker: Broker, delivery: ExactlyOnce) -> None:
    broker.takes_s = {"commit": 5.0}
    await delivery.send(outbox_of(b"1"))
    commit = asyncio.ensure_future(delivery.commit(Outbox(), OFFSETS))
    await delivery.send(outbox_of(b"2"))
    await asyncio.sleep(1.0)
    assert sorted(line for line in broker.details if line.startswith(("produce", "commit"))) == [
        "commit task at 3",
        "produce task out/3 at 1",
        "produce task.b out/3 at 1",
    ]
    assert not commit.done()
    await commit
    assert now() == pytest.approx(5.0)


@once
async def test_what_comes_after_a_commit_is_written_after_all_that_it_holds(
    broker: Broker, delivery: ExactlyOnce
) -> None:
    broker.takes_s = {"produce": 3.0}
    await delivery.send(outbox_of(b"1"))
    commit = asyncio.ensure_future(delivery.commit(outbox_of(b"saved", target=STATE), OFFSETS))
    sending = asyncio.ensure_future(delivery.send(outbox_of(b"2")))
    await asyncio.sleep(2.0)
    assert [target for target, _ in broker.written] == [OUT, STATE]
    await asyncio.gather(commit, sending)
    assert [records[0].value for _, records in broker.written] == [b"1", b"saved", b"2"]


@pytest.mark.parametrize("lost", [errors.KafkaConnectionError, TimeoutError])
def test_where_an_answer_was_lost_the_next_owner_aborts(lost: type[Exception]) -> None:
    @once
    async def check(broker: Broker, delivery: ExactlyOnce) -> None:
        broker.loses["produce"].append(lost)
        await delivery.send(outbox_of(b"1"))
        with pytest.raises(lost):
            await delivery.commit(Outbox(), OFFSETS)
        await delivery.stop()
        assert "abort" not in broker.asked, "the record may come after it"
        assert ("outdated" in broker.asked) == (lost is TimeoutError or errors.KafkaConnectionError.invalid_metadata)

    check()


@once
async def test_a_transaction_does_not_outlive_a_connection(broker: Broker, delivery: ExactlyOnce) -> None:
    await delivery.send(outbox_of(b"1"))
    await asyncio.sleep(1.0)
    broker.up = False
    with pytest.raises(errors.KafkaConnectionError, match="lost during a transaction of task"):
        await delivery.commit(Outbox(), OFFSETS)
    assert "commit" not in broker.asked


@once
async def test_a_connection_that_was_closed_between_two_transactions_is_made_anew(
    broker: Broker, delivery: ExactlyOnce
) -> None:
    for _ in range(4):
        await delivery.send(outbox_of(b"1"))
        await delivery.commit(Outbox(), OFFSETS)
        broker.up = False
        await asyncio.sleep(600.0)
        broker.up, broker.open = True, 0
        broker.generation += 1
    assert broker.asked.count("commit") == 4


@once
async def test_a_transaction_that_does_not_end_is_given_up(broker: Broker, delivery: ExactlyOnce) -> None:
    broker.refuses["group"].extend([errors.ConcurrentTransactions] * 10_000)
    with pytest.raises(RetryableError, match="last transaction of task"):
        await delivery.send(outbox_of(b"1"))
    assert 10 < now() < 30
    assert broker.asked.count("group") < 1_000


@once
async def test_while_markers_of_the_last_transaction_are_written_it_asks_again(
    broker: Broker, delivery: ExactlyOnce
) -> None:
    for kind in ("group", "add", "commit"):
        broker.refuses[kind].extend([errors.ConcurrentTransactions] * 3)
    await delivery.send(outbox_of(b"1"))
    await delivery.commit(Outbox(), OFFSETS)
    counts = {kind: broker.asked.count(kind) for kind in ("group", "add", "produce", "offsets", "commit")}
    assert counts == {"group": 4, "add": 4, "produce": 1, "offsets": 1, "commit": 4}


def test_starting_waits_until_what_was_left_is_ended() -> None:
    async def run() -> None:
        broker = Broker()
        broker.refuses["init"].extend([errors.ConcurrentTransactions] * 5)
        delivery = ExactlyOnce(broker, "task", "group")  # type: ignore[arg-type]
        await delivery.start()
        assert broker.asked == ["init"] * 7
        await delivery.stop()

    leap_through(run())


@once
async def test_no_offset_is_committed_past_a_batch_that_failed(broker: Broker, delivery: ExactlyOnce) -> None:
    broker.refuses["produce"].append(errors.MessageSizeTooLargeError)
    await delivery.send(outbox_of(b"1"))
    with pytest.raises(errors.MessageSizeTooLargeError):
        await delivery.commit(Outbox(), OFFSETS)
    assert "commit" not in broker.asked
    await delivery.stop()
    assert broker.asked[-1] == "abort"


@pytest.mark.parametrize("kind", ["group", "add", "produce", "offsets", "commit"])
def test_a_fenced_delivery_says_so(kind: str) -> None:
    @once
    async def check(broker: Broker, delivery: ExactlyOnce) -> None:
        broker.refuses[kind].append(errors.InvalidProducerEpoch)
        with pytest.raises(errors.ProducerFenced):
            await delivery.send(outbox_of(b"1"))
            await asyncio.sleep(1.0)
            await delivery.commit(Outbox(), OFFSETS)

    check()


@once
async def test_a_batch_that_failed_is_told_of_by_the_next_send(broker: Broker, delivery: ExactlyOnce) -> None:
    broker.refuses["produce"].append(errors.NotLeaderForPartitionError)
    await delivery.send(outbox_of(b"1"))
    await asyncio.sleep(1.0)
    with pytest.raises(errors.NotLeaderForPartitionError):
        await delivery.send(outbox_of(b"2"))
    assert "outdated" in broker.asked


@once
async def test_stopping_aborts_what_was_not_committed(broker: Broker, delivery: ExactlyOnce) -> None:
    await delivery.send(outbox_of(b"1"))
    await delivery.stop()
    assert broker.asked == ["init", "init", "group", "add", "produce", "abort"]


@once
async def test_stopping_after_a_commit_has_nothing_to_abort(broker: Broker, delivery: ExactlyOnce) -> None:
    await delivery.send(outbox_of(b"1"))
    await delivery.commit(Outbox(), OFFSETS)
    await delivery.stop()
    assert broker.asked[-1] == "commit"


@pytest.mark.parametrize("kind", ["group", "produce", "abort"])
def test_stopping_waits_only_seconds_for_a_broker_that_is_away(kind: str) -> None:
    @once
    async def check(broker: Broker, delivery: ExactlyOnce) -> None:
        broker.takes_s = {kind: 3600.0}
        sending = asyncio.ensure_future(delivery.send(outbox_of(b"1")))
        await asyncio.sleep(1.0)
        await delivery.stop()
        assert now() <= 10.0
        assert (kind == "abort") == ("abort" in broker.asked), "a record that came after the abort would be in none"
        await asyncio.gather(sending, return_exceptions=True)

    check()


@once
async def test_a_commit_that_is_given_up_leaves_the_abort_to_wait_for_its_records(
    broker: Broker, delivery: ExactlyOnce
) -> None:
    broker.takes_s = {"produce": 2.0}
    await delivery.send(outbox_of(b"1"))
    commit = asyncio.ensure_future(delivery.commit(Outbox(), OFFSETS))
    await asyncio.sleep(1.0)
    commit.cancel()
    await delivery.stop()
    assert now() == pytest.approx(2.0)
    assert broker.asked[-1] == "abort"


def test_where_a_leader_and_a_coordinator_have_moved_the_next_opening_goes_there() -> None:
    async def scenario() -> None:
        broker = Broker()
        delivery = ExactlyOnce(broker, "task", "group")  # type: ignore[arg-type]
        await delivery.start()
        broker.refuses["produce"].append(errors.NotLeaderForPartitionError)
        await delivery.send(outbox_of(b"1"))
        with pytest.raises(errors.NotLeaderForPartitionError) as raised:
            await delivery.commit(Outbox(), OFFSETS)
        assert is_retryable(raised.value)
        assert "outdated" in broker.asked
        await delivery.stop()
        broker.leaders["out"], broker.coordinator = 5, 6
        broker.details.clear()
        delivery = ExactlyOnce(broker, "task", "group")  # type: ignore[arg-type]
        await delivery.start()
        await delivery.send(outbox_of(b"1"))
        await delivery.commit(Outbox(), OFFSETS)
        await delivery.stop()
        asked = {detail.split()[0]: detail.split()[-1] for detail in broker.details}
        assert asked == {"init": "6", "group": "6", "add": "6", "produce": "5", "offsets": "4", "commit": "6"}

    leap_through(scenario())


def test_stopping_leaves_no_error_for_the_garbage_collector_to_complain_of() -> None:
    complaints: list[object] = []

    @once
    async def check(broker: Broker, delivery: ExactlyOnce) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context["message"]))
        broker.refuses["produce"].extend([errors.InvalidProducerEpoch] * 2)
        await delivery.send(outbox_of(b"1"))
        await delivery.send(outbox_of(b"2"))
        await delivery.stop()
        del delivery
        gc.collect()

    check()
    gc.collect()
    assert complaints == []


def test_a_writer_that_is_far_ahead_of_its_acknowledgements_waits() -> None:
    @once
    async def check(broker: Broker, delivery: ExactlyOnce) -> None:
        broker.takes_s = {"produce": 1.0}
        for number in range(5 * IN_FLIGHT):
            await delivery.send(outbox_of(b"%d" % number))
        assert broker.most_answering == IN_FLIGHT
        assert now() == pytest.approx(4.0)
        await delivery.commit(Outbox(), OFFSETS)

    check()


class Group:
    """Notes the offsets that were committed, and when."""

    def __init__(self) -> None:
        self.committed: list[tuple[float, Mapping[TopicPartition, int]]] = []

    async def commit(self, offsets: Mapping[TopicPartition, int]) -> None:
        self.committed.append((now(), offsets))


def test_without_transactions_offsets_wait_for_every_acknowledgement() -> None:
    async def run() -> None:
        broker, group = Broker(), Group()
        broker.takes_s = {"produce": 2.0}
        delivery = AtLeastOnce(broker, "task", group.commit)  # type: ignore[arg-type]
        await delivery.start()
        await delivery.send(outbox_of(b"1"))
        await asyncio.sleep(1.0)
        await delivery.commit(outbox_of(b"saved", target=STATE), OFFSETS)
        [(time_s, offsets)] = group.committed
        assert time_s == pytest.approx(3.0)
        assert offsets == OFFSETS
        await delivery.stop()
        assert broker.asked == ["init", "produce", "produce"]
        assert broker.open == 0

    leap_through(run())


def test_without_transactions_a_commit_and_a_step_that_send_at_once_share_a_connection() -> None:
    async def run() -> None:
        broker, group = Broker(), Group()
        delivery = AtLeastOnce(broker, "task", group.commit)  # type: ignore[arg-type]
        await delivery.start()
        elsewhere = TopicPartition("elsewhere", 0)
        await asyncio.gather(
            delivery.commit(outbox_of(b"saved", target=elsewhere), OFFSETS),
            delivery.send(outbox_of(b"1", target=elsewhere)),
        )
        assert broker.open == 2
        await delivery.stop()
        assert broker.open == 0

    leap_through(run())


def test_without_transactions_no_offset_is_committed_past_a_batch_that_failed() -> None:
    async def run() -> None:
        broker, group = Broker(), Group()
        broker.refuses["produce"].append(errors.MessageSizeTooLargeError)
        delivery = AtLeastOnce(broker, "task", group.commit)  # type: ignore[arg-type]
        await delivery.start()
        await delivery.send(outbox_of(b"1"))
        with pytest.raises(errors.MessageSizeTooLargeError):
            await delivery.commit(Outbox(), OFFSETS)
        assert group.committed == []
        await delivery.stop()

    leap_through(run())
