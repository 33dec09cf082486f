"""Which bucket and which variant an entity gets, for any keys, shares and numbers of variants."""

from itertools import pairwise
from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ml.errors import SharesInvalid
from ml.experiments.assignment import BUCKETS, bucket_counts, buckets_of, expanded, initial_table, reshared

KEYS = st.lists(st.one_of(st.binary(max_size=40), st.text(max_size=20).map(str.encode)), max_size=50)
MASK = (1 << 64) - 1


@st.composite
def all_counts(draw: st.DrawFn, variants: int) -> tuple[int, ...]:
    """Return how many buckets each variant has, some of them none."""
    cuts = sorted(draw(st.lists(st.integers(0, BUCKETS), min_size=variants - 1, max_size=variants - 1)))
    return tuple(np.diff([0, *cuts, BUCKETS]).tolist())


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[int, ...]]:
    """Return the numbers of buckets that up to 50 variants have, one time after the other."""
    variants = draw(st.integers(1, 50))
    return draw(st.lists(all_counts(variants), min_size=2, max_size=6))


@settings(deadline=None, database=None)
@given(KEYS, st.text(max_size=10), st.integers(0, 50))
def test_a_key_has_the_same_bucket_whatever_batch_it_is_in(keys: list[bytes], salt: str, cut: int) -> None:
    together = buckets_of(keys, salt)
    assert together.tolist() == [*buckets_of(keys[:cut], salt).tolist(), *buckets_of(keys[cut:], salt).tolist()]
    assert together.tolist() == [int(buckets_of([key], salt)[0]) for key in keys]
    assert ((together >= 0) & (together < BUCKETS)).all()


def test_buckets_are_splitmix64_at_the_checksum_of_the_key() -> None:
    """Java's SplittableRandom(seed) gives these as its outputs; a bucket that moved would move its entity."""

    def splitmix64(seed: int, number: int) -> int:
        z = (seed + (number + 1) * 0x9E3779B97F4A7C15) & MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        return z ^ (z >> 31)

    assert splitmix64(1234567, 0) == 6457827717110365317  # the published first output of that seed
    seed = 0xB1DBCDE19DA2B16F  # the first 64 bits of BLAKE2b-64("flights/one")
    keys = [b"ACA123", b"", "Zürich".encode()]
    assert buckets_of(keys, "flights/one").tolist() == [
        ((splitmix64(seed, crc32(key)) >> 32) * BUCKETS) >> 32 for key in keys
    ]


@pytest.mark.parametrize("pattern", ["entity-{}", "{:09d}", "N{}AA"])
def test_keys_spread_evenly_over_the_buckets(pattern: str) -> None:
    buckets = buckets_of([pattern.format(i).encode() for i in range(200_000)], "flights/even")
    assert stats.chisquare(np.bincount(buckets, minlength=BUCKETS)).pvalue > 0.001


def test_two_salts_assign_independently() -> None:
    keys = [f"entity-{i}".encode() for i in range(200_000)]
    one, two = (buckets_of(keys, salt) * 20 // BUCKETS for salt in ("flights/one", "flights/two"))
    table = np.bincount(one * 20 + two, minlength=400).reshape(20, 20)
    assert stats.chi2_contingency(table).pvalue > 0.001
    assert stats.chisquare(table.ravel()).pvalue > 0.001


@settings(deadline=None, database=None)
@given(histories())
def test_a_reshare_moves_the_fewest_buckets_and_only_from_shrinking_to_growing_variants(
    history: list[tuple[int, ...]],
) -> None:
    table = initial_table(history[0])
    for old, new in pairwise(history):
        before = expanded(table)
        table = reshared(table, new)
        after = expanded(table)
        assert np.bincount(after, minlength=len(new)).tolist() == list(new)
        moved = before != after
        assert moved.sum() == sum(max(0, now - then) for then, now in zip(old, new, strict=True))
        change = np.array(new) - np.array(old)
        assert (change[before[moved]] < 0).all()
        assert (change[after[moved]] > 0).all()


def test_a_rollout_keeps_every_entity_that_it_once_took() -> None:
    table, taken = initial_table((9_900, 100)), np.zeros(BUCKETS, dtype=np.bool_)
    for share in (500, 2_500, 5_000, 10_000):
        table = reshared(table, (BUCKETS - share, share))
        assert expanded(table)[taken].all()
        taken = expanded(table) == 1
        assert len(table) <= 2  # it stays as short as it began


@settings(deadline=None, database=None)
@given(st.integers(1, 50).flatmap(all_counts))
def test_counts_survive_as_shares(counts: tuple[int, ...]) -> None:
    assert bucket_counts([count / BUCKETS for count in counts]) == counts


@settings(deadline=None, database=None)
@given(st.lists(st.floats(0.001, 1), min_size=1, max_size=50))
def test_shares_are_rounded_by_less_than_a_bucket(weights: list[float]) -> None:
    shares = [weight / sum(weights) for weight in weights]
    counts = bucket_counts(shares)
    assert sum(counts) == BUCKETS
    assert all(abs(count - share * BUCKETS) < 1 for count, share in zip(counts, shares, strict=True))


def test_the_largest_remainders_are_rounded_up() -> None:
    assert bucket_counts([1 / 3, 1 / 3, 1 / 3]) == (3_334, 3_333, 3_333)
    assert bucket_counts([0.99995, 0.00005]) == (10_000, 0)
    assert bucket_counts([0.50002, 0.49998]) == (5_000, 5_000)
    assert bucket_counts([0.33331, 0.33338, 0.33331]) == (3_333, 3_334, 3_333)
    assert bucket_counts([0.43, 0.57]) == (4_300, 5_700)  # 0.57 × 10,000 is a little less than 5,700


@pytest.mark.parametrize(
    ("shares", "problem"),
    [([0.5, 0.4], "make 0.9"), ([1.5, -0.5], "from 0 to 1"), ([float("nan"), 1.0], "from 0 to 1"), ([], "from 0 to 1")],
)
def test_shares_that_are_none_are_refused_with_a_sentence(shares: list[float], problem: str) -> None:
    with pytest.raises(SharesInvalid, match=problem):
        bucket_counts(shares)


def test_tables_that_do_not_hold_every_bucket_once_are_refused() -> None:
    for table in ((), ((0, 9_999),), ((0, 10_001), (1, -1)), ((-1, 10_000),), ((40_000, 10_000),)):
        with pytest.raises(SharesInvalid):
            expanded(table)
    for counts in ((9_999,), (10_001, -1), ()):
        with pytest.raises(SharesInvalid):
            initial_table(counts)
    with pytest.raises(SharesInvalid, match="2 variants"):
        reshared(((0, 9_000), (1, 1_000)), (10_000,))
