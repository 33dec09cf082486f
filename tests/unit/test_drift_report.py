"""What a person reads of a drift report."""

from io import StringIO
from typing import Any

from app.drift_report import render
from schemas.drift import DriftReport
from tests.drifting import column_of, report_of

MOVED: dict[str, Any] = {
    "severity": "high",
    "reason": "PSI 1.2, mean +0.9 deviations",
    "psi": 1.2,
    "ks": 0.4128,
    "p_value": 1e-30,
    "wasserstein_scaled": 0.9,
    "missing_share": 0.125,
    "mean": 12_345.6,
    "reference": (0.25, 0.25, 0.5, 0.0),
    "current": (0.0, 0.0, 0.0, 1.0),
}


def shown(report: DriftReport) -> list[str]:
    out = StringIO()
    render(report, out)
    return out.getvalue().splitlines()


def line_of(lines: list[str], name: str) -> str:
    [line] = [line for line in lines if line.startswith(f"{name} ")]
    return line


def test_the_head_says_which_window_which_model_and_what_to_do() -> None:
    head = shown(report_of(7, severity="critical", drifted_share=0.4, recommendation="act now"))[:3]
    assert head == [
        "flights: window 7, 1,000 events from 1970-01-01 01:56 to 1970-01-01 02:13 UTC",
        "model m1, baseline bbbbbbbbbbbb",
        "critical: 40% of the judged features have drifted; recommended: act now",
    ]


def test_a_quiet_report_recommends_nothing() -> None:
    assert shown(report_of(1))[2] == "none: 0% of the judged features have drifted"


def test_the_worst_column_comes_first_and_what_is_only_counted_last() -> None:
    columns = (
        column_of("counted", judged=False, psi=0.05),
        column_of("quiet", psi=0.01),
        column_of("low", severity="low", psi=0.09),
        column_of("worst", **MOVED),
        column_of("unknown", psi=None),
    )
    names = [line.split()[0] for line in shown(report_of(1, *columns)) if line.partition(" ")[0] in COLUMNS]
    assert names == ["worst", "low", "quiet", "unknown", "counted"]


COLUMNS = {"counted", "quiet", "low", "worst", "unknown"}


def test_a_column_has_its_figures_and_the_baseline_above_the_window_on_one_scale() -> None:
    lines = shown(report_of(1, column_of("distance", **MOVED)))
    upper = line_of(lines, "distance")
    lower = lines[lines.index(upper) + 1]
    assert upper.split() == ["distance", "high", "1.2000", "0.413", "<0.0001", "0.900", "12.5%", "12,346", "▂▂▄·"]
    assert lower.split("  ")[1] == "PSI 1.2, mean +0.9 deviations"
    assert lower.endswith("···█")
    assert upper.index("▂▂▄·") == lower.index("···█")


def test_what_could_not_be_computed_is_a_dash_and_says_why() -> None:
    nothing = dict.fromkeys(("psi", "ks", "p_value", "wasserstein_scaled", "missing_share", "mean"))
    column = column_of("empty", **nothing, judged=False, reason="no values", bins=(), reference=(), current=())
    lines = shown(report_of(1, column))
    upper = line_of(lines, "empty")
    assert upper.split() == ["empty", "not", "judged", *"------"]
    assert lines[lines.index(upper) + 1] == "  no values"


def test_many_bins_share_blocks_and_long_names_are_cut() -> None:
    shares = (1 / 100,) * 100
    lines = shown(report_of(1, column_of("n" * 60, reference=shares, current=shares)))
    upper = line_of(lines, "n" * 27 + "…")
    assert upper.split()[-1] == "█" * 33 + "▃"  # three bins to a block, and the last alone


def test_the_predictions_are_a_table_of_their_own() -> None:
    lines = shown(report_of(1))
    [title] = [line for line in lines if line.startswith("prediction ")]
    assert lines.index(title) < lines.index(line_of(lines, "score"))


def test_nothing_that_a_terminal_would_obey_is_shown() -> None:
    evil = "\x1b[2J\x9bx\n"
    text = "\n".join(shown(report_of(1, column_of(evil, reason=evil), recommendation=evil, model_id=evil)))
    assert "\x1b" not in text
    assert "\x9b" not in text
    assert text.count(r"\x1b[2J\x9bx\n") == 4
