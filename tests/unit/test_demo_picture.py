"""The README's picture of retraining."""

from app.demo.picture import picture

SAID = {
    "auc": {"static": 0.648, "served": 0.662, "difference": 0.014, "low": 0.007, "high": 0.02},
    "auc_by_month": [
        {"month": "Feb", "samples": 8_000, "static": 0.64, "served": 0.64},
        {"month": "Mar", "samples": 9_000, "static": 0.63, "served": 0.66},
        {"month": "Apr", "samples": 0, "static": None, "served": None},
    ],
    "promoted": [{"model_id": "m1", "changed_by": "rollout m1", "event_time_ms": 1_362_700_000_000}],
}


def test_the_picture_shows_both_curves_and_the_promotion_and_is_the_same_each_time() -> None:
    drawn = picture(SAID)
    assert drawn == picture(SAID)
    for words in (b"January's model alone", b"as served", b"a new champion takes over", b"+0.014", b"Mar"):
        assert words in drawn
