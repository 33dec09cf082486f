"""The checker of partial histograms finds what it is there to find."""

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from benchmarks.histogram_checker import Scale, count, count_differences, cover_differences, report_differences
from schemas.drift import ColumnCounts, DriftReport, PartialHistogram

SCALES = [Scale("wide", (-1.0, 0.0, 0.5, 2.0), 0.25, 2.0), Scale("constant", (3.0, 3.5), 3.0, 0.0)]
PIECES = ((0, 0, 300), (0, 300, 301), (1, 0, 250), (1, 250, 449))  # partition, from, to
EVENTS = 750
COMMITTED = {0: 301, 1: 449}


def values() -> list[np.ndarray]:
    random = np.random.default_rng(3)
    wide = random.normal(size=EVENTS).astype(np.float32)
    wide[::10] = np.nan
    wide[1:9:2] = [-1.0, 0.0, 0.5, 2.0]  # on the edges
    return [wide, np.full(EVENTS, 3.0, dtype=np.float32)]


def partials() -> list[PartialHistogram]:
    """The values, counted in pieces one by one and by nothing but comparisons, as they would be on Kafka."""
    found, first = [], 0
    for partition, start, stop in PIECES:
        n = stop - start
        columns = tuple(counted(scale, v[first : first + n]) for scale, v in zip(SCALES, values(), strict=True))
        times = {"from_time_ms": first, "to_time_ms": first + n - 1}
        place = {"partition": partition, "from_offset": start, "to_offset": stop, "n": n}
        found.append(
            PartialHistogram(stream="s", baseline="b", model_id="m", columns=columns, **place, **times)  # type: ignore[arg-type]
        )
        first += n
    return found


def counted(scale: Scale, column: Sequence[float] | np.ndarray) -> ColumnCounts:
    there = [float(value) for value in column if value == value]
    cells = [sum(edge <= value for edge in scale.edges) for value in there]
    z = [(value - (scale.mean or 0.0)) / (scale.deviation or 1.0) for value in there]
    filled = sorted(set(cells))
    return ColumnCounts(
        missing=len(column) - len(there),
        cells=tuple(filled),
        counts=tuple(cells.count(cell) for cell in filled),
        sums=tuple(sum(each**power for each in z) for power in (1, 2, 3, 4)),  # type: ignore[arg-type]
    )


def differences(of: Sequence[PartialHistogram]) -> list[str]:
    return count_differences(SCALES, of, values()) + cover_differences(of, COMMITTED)


def with_column(partial: PartialHistogram, column: int, **changes: object) -> PartialHistogram:
    columns = list(partial.columns)
    columns[column] = msgspec.structs.replace(columns[column], **changes)  # type: ignore[arg-type]
    return msgspec.structs.replace(partial, columns=tuple(columns))


def test_partials_that_add_up_are_right_in_any_order() -> None:
    assert differences(partials()) == []
    assert differences(partials()[::-1]) == []


@pytest.mark.parametrize("position", range(len(PIECES)))
def test_a_skipped_partial_is_found_by_its_counts_and_by_its_place(position: int) -> None:
    left = [partial for i, partial in enumerate(partials()) if i != position]
    assert count_differences(SCALES, left, values())
    assert cover_differences(left, COMMITTED)


@pytest.mark.parametrize("position", range(len(PIECES)))
def test_a_doubled_partial_is_found_by_its_counts_and_by_its_place(position: int) -> None:
    doubled = [*partials(), partials()[position]]
    assert count_differences(SCALES, doubled, values())
    assert cover_differences(doubled, COMMITTED)


def test_a_doubled_partial_does_not_make_up_for_a_skipped_one_of_the_same_size() -> None:
    skipped, doubled = partials()[0], partials()[2]
    moved = msgspec.structs.replace(doubled, partition=0, from_offset=0, to_offset=300, n=300)
    found = count_differences(SCALES, [p for p in partials() if p != skipped] + [moved], values())
    assert any(difference.startswith("wide: ") for difference in found)


def test_one_value_in_the_next_cell_is_a_difference() -> None:
    first = partials()[0]
    cells = list(first.columns[0].counts)
    cells[0] -= 1
    cells[1] += 1
    found = differences([with_column(first, 0, counts=tuple(cells)), *partials()[1:]])
    assert found == ["wide: 2 cells differ from numpy.histogram, by +0 values in all"]


def test_a_missing_value_too_many_is_a_difference() -> None:
    first = partials()[0]
    found = differences([with_column(first, 0, missing=first.columns[0].missing + 1), *partials()[1:]])
    assert found == ["wide: 76 values are missing, and should be 75"]


def test_sums_that_are_off_are_a_difference() -> None:
    first = partials()[0]
    sums = first.columns[0].sums
    found = differences([with_column(first, 0, sums=(sums[0], sums[1], sums[2], sums[3] + 1e-4)), *partials()[1:]])
    assert len(found) == 1
    assert found[0].startswith("wide: the sums are ")


def test_a_cell_that_the_baseline_has_not_is_an_error() -> None:
    first = partials()[0]
    with pytest.raises(ValueError, match="cells that the baseline has not"):
        differences([with_column(first, 1, cells=(3,), counts=(300,))])


@pytest.mark.parametrize(
    ("changes", "flaw"),
    [
        ({"from_offset": 301}, "partition 0: a gap between 300 and 301"),
        ({"from_offset": 299}, "partition 0: an overlap between 300 and 299"),
        ({"to_offset": 302}, "partition 0: counted up to 302, committed up to 301"),
        ({"n": 2}, "partition 0: 2 events counted of offsets 300 to 301"),
    ],
)
def test_what_partials_cover_is_what_is_committed_without_gap_or_overlap(changes: dict[str, int], flaw: str) -> None:
    first, second, *others = partials()
    assert flaw in cover_differences([first, msgspec.structs.replace(second, **changes), *others], COMMITTED)


def test_a_partition_of_which_nothing_was_counted_is_found() -> None:
    assert cover_differences(partials(), COMMITTED | {2: 5}) == ["partition 2: counted up to 0, committed up to 5"]


def test_numpys_last_cell_is_open_like_the_others() -> None:
    counted_, _ = count(SCALES[0], np.array([2.0, 1e30, -1e30, np.nan], dtype=np.float32))
    assert (counted_.cells.tolist(), counted_.missing) == ([1, 0, 0, 0, 2], 1)


def reports(*windows: tuple[int, int, int]) -> list[DriftReport]:
    return [
        DriftReport(
            stream="s",
            number=number,
            model_id="m",
            baseline="b",
            from_time_ms=first,
            to_time_ms=last,
            n=n,
            severity="none",
            drifted_share=0.0,
            features=(),
            predictions=(),
            recommendation="",
        )
        for number, (n, first, last) in enumerate(windows)
    ]


RIGHT = ((301, 0, 300), (449, 301, 749))


def test_each_window_of_the_log_has_its_report() -> None:
    assert report_differences(partials(), reports(*RIGHT), 301) == []
    assert report_differences(partials(), reports((551, 0, 550)), 302) == []  # the last window is not full


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(RIGHT[:1], id="a report is left out"),
        pytest.param((*RIGHT, RIGHT[1]), id="a report is there twice"),
        pytest.param((RIGHT[0], (448, 301, 748)), id="a report is of other events"),
    ],
)
def test_reports_that_are_not_those_of_the_windows_are_found(told: tuple[tuple[int, int, int], ...]) -> None:
    assert len(report_differences(partials(), reports(*told), 301)) == 1


def test_reports_with_other_numbers_are_found() -> None:
    first, second = reports(*RIGHT)
    found = report_differences(partials(), [first, msgspec.structs.replace(second, number=2)], 301)
    assert found == ["the reports are not numbered from 0 on, one by one"]
