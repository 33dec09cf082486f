"""Partitions of keys, by values that Kafka's own tests have for murmur2."""

import numpy as np
import pytest

from stream.partitioner import murmur2, partitions_of

# From Apache Kafka's UtilsTest.testMurmur2.
KNOWN = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize("times", [1, 4])
def test_hashes_are_those_of_apache_kafka_for_a_few_keys_and_for_many(times: int) -> None:
    assert murmur2([*KNOWN] * times).view(np.int32).tolist() == [*KNOWN.values()] * times


def test_no_keys_have_no_partitions() -> None:
    assert partitions_of([], 4).tolist() == []


def test_one_partition_takes_every_key() -> None:
    assert partitions_of([b"", b"a", b"bc"], 1).tolist() == [0, 0, 0]


def test_keys_spread_evenly() -> None:
    counts = np.bincount(partitions_of([b"entity-%d" % i for i in range(8000)], 8), minlength=8)
    assert counts.min() > 900
    assert counts.max() < 1100
