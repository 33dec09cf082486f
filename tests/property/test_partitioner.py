"""Our partitions of a batch of keys against aiokafka's of one key, for any keys."""

from aiokafka.partitioner import DefaultPartitioner
from aiokafka.partitioner import murmur2 as murmur2_of_one
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.partitioner import murmur2, partitions_of

KEYS = st.lists(st.one_of(st.binary(max_size=40), st.text(max_size=20).map(str.encode)), max_size=50)


@settings(deadline=None, database=None)
@given(KEYS)
def test_a_batch_hashes_as_its_keys_do_one_by_one(keys: list[bytes]) -> None:
    assert murmur2(keys).tolist() == [murmur2_of_one(key) & 0xFFFFFFFF for key in keys]


@settings(deadline=None, database=None)
@given(KEYS, st.integers(1, 1000))
def test_a_key_is_placed_where_a_producer_puts_it(keys: list[bytes], partitions: int) -> None:
    everywhere = list(range(partitions))
    put = [DefaultPartitioner()(key, everywhere, everywhere) for key in keys]
    assert partitions_of(keys, partitions).tolist() == put
