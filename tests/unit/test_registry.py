"""What two records of one version say together, and which number a new version gets."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.registry import ALLOWED, Registry, merged, next_version
from schemas.events import ModelVersion
from schemas.streams import StreamSpec
from schemas.wire import encode
from stream.views import LogView
from tests.support import version_of

SPEC = StreamSpec(name="flights", features=("a", "b"))


def _version(model_id: str = "m1", **changes: Any) -> ModelVersion:
    return msgspec.structs.replace(version_of(SPEC, model_id), **changes)


def _registry(*versions: ModelVersion) -> Registry:
    models = LogView("flights.models", ModelVersion)
    registry = Registry(models)
    for version in versions:
        models.fold([encode(version)])
        assert registry.find(version.model_id) is not None
    return registry


def test_a_version_is_known_by_its_id_from_its_first_record_on() -> None:
    registry = _registry(_version("m1"), _version("m2"), _version("m1", size_bytes=9))
    assert registry.find("m3") is None
    assert list(registry.versions) == ["m1", "m2"]
    assert registry.versions["m1"].size_bytes == 9


def test_a_status_and_a_baseline_from_two_who_did_not_see_each_other_both_count() -> None:
    promoted = _version(status="production", changes=1, changed_by="ada", changed_time_ms=5, reason="better")
    measured = _version(baseline="1" * 64, baseline_bytes=9)
    both = msgspec.structs.replace(promoted, baseline="1" * 64, baseline_bytes=9)
    assert _registry(_version(), promoted, measured).find("m1") == both
    assert _registry(_version(), measured, promoted).find("m1") == both


def test_a_new_status_from_an_old_copy_does_not_bring_a_pruned_file_back() -> None:
    found = _registry(_version(), _version(pruned=True, status="archived"), _version(status="testing", changes=1))
    assert (found.versions["m1"].pruned, found.versions["m1"].status) == (True, "testing")


def test_with_as_many_changes_the_later_record_counts() -> None:
    put_away = _version(status="archived", reason="worse")
    assert _registry(_version(), put_away).find("m1") == put_away


_RECORDS = st.lists(
    st.builds(
        lambda changes, size: _version(
            status=sorted(ALLOWED)[changes % 5], changes=changes, changed_by=f"by {changes}", size_bytes=size
        ),
        st.integers(0, 6),
        st.integers(1, 99),
    ),
    min_size=1,
    max_size=12,
)


@given(_RECORDS)
def test_no_stale_record_changes_a_status(records: list[ModelVersion]) -> None:
    known = records[0]
    for record in records[1:]:
        after = merged(known, record)
        assert after.changes == max(known.changes, record.changes)
        if record.changes < known.changes:
            assert (after.status, after.changed_by) == (known.status, known.changed_by)
            assert after.size_bytes == record.size_bytes
        else:
            assert (after.status, after.changed_by) == (record.status, record.changed_by)
        known = after
    assert _registry(*records).find("m1") == known


def test_from_every_status_but_archived_a_version_can_be_put_away_and_back() -> None:
    assert all("archived" in after for status, after in ALLOWED.items() if status != "archived")
    assert ALLOWED["archived"] == {"staging", "production"}
    assert "draft" not in ALLOWED["staging"] | ALLOWED["production"] | ALLOWED["archived"]


KNOWN = [
    _version("m1", version="1.0.0"),
    _version("m2", version="1.4.2"),
    _version("m3", version="2.0.0", algorithm="other"),
    _version("m4"),
]


@pytest.mark.parametrize(
    ("known", "changes", "number"),
    [
        ([], {}, "1.0.0"),
        (KNOWN[3:], {}, "1.0.0"),
        (KNOWN, {}, "1.5.0"),
        (KNOWN, {"lineage": "online", "samples_offset": 5}, "1.4.3"),
        (KNOWN, {"algorithm": "other"}, "2.1.0"),
        (KNOWN, {"algorithm": "third"}, "3.0.0"),
        (KNOWN, {"features": ("a",)}, "3.0.0"),
        (KNOWN, {"features": ("b", "a"), "lineage": "online", "samples_offset": 5}, "3.0.0"),
        (KNOWN, {"model_id": "m2"}, "1.4.2"),
        ([_version("m1", version="1.9.0"), _version("m2", version="1.10.0")], {}, "1.11.0"),
    ],
)
def test_a_version_s_number_says_what_is_new_about_it(
    known: list[ModelVersion], changes: dict[str, Any], number: str
) -> None:
    candidate = msgspec.structs.replace(_version("new"), **changes)
    assert next_version(known, candidate) == number
