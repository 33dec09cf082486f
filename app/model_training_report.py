"""A model that was trained from a file, as a person reads of it, and as a document."""

from collections.abc import Iterator
from typing import Any, Final

from app.model_training import Trained
from app.text import minute
from ml.training.comparison import Difference, Metric

_NAMES: Final[dict[Metric, str]] = {"roc_auc": "ROC AUC", "accuracy": "accuracy", "log_loss": "log loss"}


def document(trained: Trained) -> dict[str, Any]:
    """Return what is told of it as JSON, beside the version."""
    return {
        "rows": trained.rows,
        "timed": trained.timed,
        "against_guessing": [
            {
                "metric": difference.metric,
                "model": difference.candidate,
                "guessing": difference.champion,
                "difference": difference.value,
                "low": difference.low,
                "high": difference.high,
            }
            for difference in trained.against_guessing
        ],
    }


def lines(trained: Trained) -> Iterator[str]:
    """Yield on what it was trained, what it is worth, and what to beware of."""
    rows, test = trained.rows, trained.parts.test
    when = f", {minute(int(test.event_time_ms[0]))} to {minute(int(test.event_time_ms[-1]))} UTC"
    part = f"the newest {rows['test']:,} rows{when}" if trained.timed else f"{rows['test']:,} rows drawn at random"
    yield f"Trained on {rows['train']:,} rows, stopped by {rows['validation']:,}, tested on {part}:"
    for difference in trained.against_guessing:
        interval = f" ({_interval(difference)})" if difference.low is not None else ""
        yield (
            f"  {_NAMES[difference.metric]:<9} {difference.candidate:.3f}, by guessing {difference.champion:.3f}: "
            f"{difference.value:+.3f}{interval}"
        )
    yield "The intervals are of 95%; the events of an entity count as one."
    if not trained.timed:
        yield "No column is a time, so the rows were shuffled."
    if trained.shared:
        yield (
            f"{trained.shared:,} entities of the test have rows in what the model learnt from, too: it may be worth "
            "less for entities that are new."
        )
    if trained.unlabelled:
        yield f"{trained.unlabelled:,} rows without a label were left out."
    yield from trained.fitted.notes
    if not trained.better_than_guessing:
        yield "It may be no better than guessing: look at the label and the features before you promote it."


def _interval(difference: Difference) -> str:
    return f"{difference.low:+.3f} to {difference.high:+.3f}"
