"""The text of a model's card, in Markdown."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

from agents.train.facts import Card, Part
from ml.training.measure import FIGURES

_TITLES: Final = {
    "roc.svg": "ROC curve",
    "precision-recall.svg": "Precision and recall",
    "calibration.svg": "Calibration",
    "thresholds.svg": "Thresholds",
    "importance.svg": "Importance of features",
}
_NAMES: Final = {"roc_auc": "ROC AUC", "pr_auc": "PR AUC (average precision)", "f1": "F1", "brier": "Brier score"}
_MOST_CLASSES: Final = 20  # of a confusion matrix that a page has room for
_FEW_ENTITIES: Final = 30  # below that, an interval rests on its assumptions
_POORLY_CALIBRATED: Final = 0.05
_SHIFTED: Final = 1.25  # times as often, or as rarely


def text_of(card: Card, plots: Sequence[str]) -> str:
    """Return the card, with the `plots` of these file names."""
    sections = [
        _head(card),
        _gates(card),
        _figures(card),
        _decisions(card),
        _pictures(plots),
        _data(card),
        _importance(card),
        _table(("Parameter", "Value"), sorted(card.version.parameters.items()), "## Parameters"),
        ["## Limits and caveats", "", *(f"- {caveat}" for caveat in caveats_of(card))],
        _use(card),
    ]
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def caveats_of(card: Card) -> list[str]:
    """Return what must be known before the figures are believed, a sentence each."""
    train, test = card.parts[0], card.parts[-1]
    found = [
        "Only events whose labels came are in the figures; of the newest events, whose labels may still come, none is.",
        "In the interval the events of an entity count as one; what moves all entities at once, such as the weather of "
        "a day, is not in it.",
        "The test data chose nothing: not the parameters, not the end of the fit, not the best threshold. It measured "
        "the candidate and the champion, once: another run on the same samples, by the same declaration, comes to the "
        "same model and the same figures. A run on other samples, most of them the same, is another try.",
    ]
    found += _of_champion(card, test)
    for name, share in train.shares.items():
        now = test.shares[name]
        if max(now, share) > _SHIFTED * min(now, share):
            found.append(f"Class {name} makes up {now:.1%} of the test data, and {share:.1%} of the training data.")
    error = card.test.calibration_error
    if error is not None and error > _POORLY_CALIBRATED:
        found.append(f"Scores are off by {error:.3f} on average, so do not take them for probabilities.")
    if card.importance:
        found.append("Features that say the same stand in for one another, so each of them looks less important.")
    return [*found, *card.notes]


def _of_champion(card: Card, test: Part) -> list[str]:
    rival = card.rival
    if rival is None:
        return ["There is no champion to compare with."]
    if rival.found.difference is None:
        return [f"It is not compared with the champion: {rival.found.incomparable or 'nobody did'}."]
    found = []
    if rival.found.as_served:
        found.append(
            "The champion is a learner's and may know the test data, so it counts with what was served at the time, "
            "on the events that have such scores."
        )
    elif rival.version.training_to_time_ms is None:
        found.append("What the champion learnt from is not recorded: it may know some of the test data.")
    elif rival.version.training_to_time_ms > test.from_time_ms:
        found.append(
            f"The champion learnt from events up to {_moment(rival.version.training_to_time_ms)}, so it knows some of "
            "the test data: the comparison favours the champion."
        )
    if rival.found.difference.entities_known and rival.found.difference.entities < _FEW_ENTITIES:
        found.append(f"The interval rests on few entities: they are worth {rival.found.difference.entities:.0f} alike.")
    return found


def _head(card: Card) -> list[str]:
    version = card.version
    failed = [gate.gate for gate in card.gates if not gate.passed]
    verdict = f"It did **not** pass: {', '.join(failed)}." if failed else "It passed every gate."
    asked = f"{_inline(card.requested_by)} asked for it" if card.requested_by else "it was asked for"
    because = f": {_inline(card.asked_because)}" if card.asked_because else ""
    return [
        f"# {version.model_id}",
        "",
        f"A candidate for the stream **{version.stream}** ({version.task}), made by run `{card.run_id}`: {asked} "
        f"({', '.join(card.reasons)}{because}). {verdict}",
        "",
        f"- Algorithm: {version.algorithm}; {version.size_bytes:,} bytes, SHA-256 `{version.sha256}`",
        f"- Made: {_moment(version.created_time_ms)}",
        f"- Features: {len(version.features)}" + (f"; classes: {len(version.classes)}" if version.classes else ""),
    ]


def _gates(card: Card) -> list[str]:
    rows = [(gate.gate, "passed" if gate.passed else "**failed**", gate.message) for gate in card.gates]
    return _table(("Gate", "", "Why"), rows, "## Gates")


def _figures(card: Card) -> list[str]:
    """The figures of all that was measured, side by side."""
    columns = {"Test": card.test, "Validation": card.validation}
    if card.rival is not None and card.rival.test is not None:
        columns = {"Test": card.test, "Champion, test": card.rival.test, "Validation": card.validation}
    rows = [
        (_NAMES.get(name, name.replace("_", " ")), *(_number(getattr(each, name)) for each in columns.values()))
        for name in FIGURES
        if any(getattr(each, name) is not None for each in columns.values())
    ]
    table = _table(("", *columns), rows, "## What it is worth")
    difference = card.rival.found.difference if card.rival is not None else None
    if card.rival is None or difference is None or difference.low is None or difference.high is None:
        return table
    name = _NAMES.get(difference.metric, difference.metric.replace("_", " "))
    return [
        *table,
        "",
        f"The difference from the champion, `{card.rival.version.model_id}`, in {name} is {difference.value:+.4f}, "
        f"with the {100 * (1 - difference.alpha):g}% interval {difference.low:+.4f} to {difference.high:+.4f}.",
    ]


def _decisions(card: Card) -> list[str]:
    """The confusion matrix, and what another threshold would do."""
    names = list(card.parts[-1].shares)
    if len(names) > _MOST_CLASSES:
        return ["## Decisions on the test data", "", f"`report.json` has the confusion matrix of {len(names)} classes."]
    rows = [(name, *map(_count, row)) for name, row in zip(names, card.test.confusion, strict=True)]
    lines = _table(("True \\ predicted", *names), rows, "## Decisions on the test data")
    best, at_best = card.validation.best, card.test_at_best
    if best is None or at_best is None:
        return lines
    kept = ("precision", "recall", "f1", "false_positive_rate")
    thresholds = (("the stream's", card.test), ("best F1 on the validation data", at_best))
    compared = [
        (f"{each.threshold:.4g}, {name}", *(_number(getattr(each, figure)) for figure in kept))
        for name, each in thresholds
    ]
    headings = ("Threshold", *(_NAMES.get(figure, figure.replace("_", " ")) for figure in kept))
    return [*lines, "", *_table(headings, compared), "", "F1 takes both kinds of mistakes for equally bad."]


def _pictures(plots: Sequence[str]) -> list[str]:
    if not plots:
        return ["There are no plots: those need matplotlib (`pip install 'penstock[train]'`)."]
    return [f"![{_TITLES[name]}]({name})" for name in plots]


def _data(card: Card) -> list[str]:
    classes = list(card.parts[0].shares)[:_MOST_CLASSES]
    shown = classes[1:] if len(card.parts[0].shares) == 2 else classes
    rows = [
        (
            part.name,
            f"{part.rows:,}",
            f"{part.entities:,}",
            _moment(part.from_time_ms),
            _moment(part.to_time_ms),
            *(f"{part.shares[name]:.1%}" for name in shown),
        )
        for part in card.parts
    ]
    headings = ("Part", "Events", "Entities", "From (event time)", "To", *(f"Class {name}" for name in shown))
    drift = "`drift.json` says how the features of the test data differ from those of the training data."
    lines = [*_table(headings, rows, "## What it was made from"), "", card.source, "", drift]
    return [*lines, "", *(f"    {line}" for line in card.query.splitlines())] if card.query else lines


def _importance(card: Card) -> list[str]:
    ranked = sorted(card.importance, key=lambda each: -each.increase)
    rows = [(each.feature, f"{each.increase:+.5f}", f"{each.spread:.5f}") for each in ranked]
    return _table(("Feature", "Loss without it", "±"), rows, "## Features") if rows else []


def _use(card: Card) -> list[str]:
    version = card.version
    on_stream = f"{version.model_id} --stream {version.stream}"
    return [
        "## How to use it",
        "",
        f"    penstock models shadow {on_stream}     # it scores beside the champion",
        f"    penstock models promote {on_stream}    # it serves",
    ]


def _table(headings: Sequence[object], rows: Iterable[Sequence[object]], title: str = "") -> list[str]:
    """Return a table under its title."""
    lines = [title, ""] if title else []
    lines += [_row(headings), _row(["---"] * len(headings))]
    return lines + [_row(row) for row in rows]


def _row(cells: Sequence[object]) -> str:
    return "| " + " | ".join(_inline(str(cell)) for cell in cells) + " |"


def _inline(text: str) -> str:
    """Return text that neither ends its line nor its cell."""
    return " ".join(text.split()).replace("|", "\\|")


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _count(weight: float) -> str:
    return f"{weight:,.1f}".removesuffix(".0")


def _moment(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M} UTC"
