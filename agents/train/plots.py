"""The pictures of a model's card, as SVG. They need matplotlib, of the extra `train`; without it there are none."""

import io
import warnings
from collections.abc import Callable
from typing import Any, Final

from agents.train.facts import Card
from ml.training.measure import Measures

_BARS: Final = 20
_OWN: Final = {"color": "#1f5fa8", "linewidth": 1.8, "label": "candidate"}
_RIVAL: Final = {"color": "#c4682b", "linewidth": 1.4, "linestyle": "--", "label": "champion"}
_GUIDE: Final = {"color": "#9a9a9a", "linewidth": 0.8, "linestyle": ":"}
_STYLE: Final = {
    "svg.hashsalt": "penstock",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "legend.frameon": False,
}

Axes = Any
"""Axes of matplotlib, whose types mypy does not see."""


def plots_of(card: Card) -> dict[str, bytes]:
    """Return the plots that the card's figures allow, by file name; none without matplotlib."""
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        return {}
    drawers: dict[str, Callable[[Axes], None]] = {}
    if card.test.curve:
        drawers["roc.svg"] = lambda axes: _roc(axes, card)
        drawers["precision-recall.svg"] = lambda axes: _precision_recall(axes, card)
    if card.test.calibration:
        drawers["calibration.svg"] = lambda axes: _calibration(axes, card)
    if card.validation.curve:
        drawers["thresholds.svg"] = lambda axes: _thresholds(axes, card)
    if card.importance:
        drawers["importance.svg"] = lambda axes: _importance(axes, card)
    return {name: _drawn(draw) for name, draw in drawers.items()}


def _drawn(draw: Callable[[Axes], None]) -> bytes:
    """Return the SVG that `draw` makes of empty axes; without its date, so that it is the same whenever it is made."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure = Figure(figsize=(5.0, 3.6), layout="constrained")
        draw(figure.add_subplot())
        buffer = io.BytesIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()


def _both(card: Card) -> list[tuple[Measures, dict[str, Any]]]:
    """Return what there is to draw on the test rows: the champion first, so that the candidate lies on top."""
    rival = [] if card.rival is None or card.rival.test is None else [(card.rival.test, _RIVAL)]
    return [*rival, (card.test, _OWN)]


def _roc(axes: Axes, card: Card) -> None:
    axes.plot([0, 1], [0, 1], **_GUIDE)
    for measures, style in _both(card):
        shares = [point.false_positive_rate for point in measures.curve]
        axes.plot([0.0, *shares], [0.0, *(point.recall for point in measures.curve)], **style)
    axes.set(xlabel="false-positive rate", ylabel="recall", title="ROC, test data")
    axes.legend(loc="lower right")


def _precision_recall(axes: Axes, card: Card) -> None:
    axes.axhline(card.test.curve[-1].precision, **_GUIDE)
    for measures, style in _both(card):
        recalls = [point.recall for point in measures.curve]
        axes.plot(recalls, [point.precision for point in measures.curve], drawstyle="steps-pre", **style)
    axes.set(xlabel="recall", ylabel="precision", ylim=(0, 1.02), title="Precision and recall, test data")
    axes.legend(loc="upper right")


def _calibration(axes: Axes, card: Card) -> None:
    axes.plot([0, 1], [0, 1], **_GUIDE)
    for measures, style in _both(card):
        most = max((each.weight for each in measures.calibration), default=1.0)
        places = [each.confidence for each in measures.calibration], [each.share for each in measures.calibration]
        axes.plot(*places, **style)
        axes.scatter(*places, [4 + 60 * each.weight / most for each in measures.calibration], style["color"])
    axes.set(xlabel="score", ylabel="share that came true", title="Calibration, test data (area: events)")
    axes.legend(loc="upper left")


def _thresholds(axes: Axes, card: Card) -> None:
    curve = card.validation.curve
    thresholds = [point.threshold for point in curve]
    for name, color, style in (("precision", "#1f5fa8", "-"), ("recall", "#c4682b", "--"), ("f1", "#3a7d44", "-.")):
        axes.plot(thresholds, [getattr(point, name) for point in curve], color=color, linestyle=style, label=name)
    if card.validation.threshold is not None:
        axes.axvline(card.validation.threshold, color="black", linewidth=0.8, label="the stream's")
    if card.validation.best is not None:
        axes.axvline(card.validation.best.threshold, color="#3a7d44", linewidth=0.8, label="best F1")
    axes.set(xlabel="threshold", ylim=(0, 1.02), title="Thresholds, validation data")
    axes.legend(loc="best")


def _importance(axes: Axes, card: Card) -> None:
    top = sorted(card.importance, key=lambda each: -each.increase)[:_BARS][::-1]
    increases, spreads = [each.increase for each in top], [each.spread for each in top]
    axes.barh(range(len(top)), increases, xerr=spreads, color="#1f5fa8", ecolor="#555555", height=0.7)
    names = [each.feature if len(each.feature) <= 32 else each.feature[:31] + "…" for each in top]
    axes.set_yticks(range(len(top)), names, parse_math=False, fontsize=9 if len(top) < 12 else 7)
    axes.set(xlabel="growth of the loss without it", title="Importance of features, test data")
    axes.grid(visible=False, axis="y")
