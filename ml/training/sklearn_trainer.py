"""Classifiers of scikit-learn. Those that grow by trees are grown while that lowers the loss on the validation data."""

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from threadpoolctl import threadpool_limits

from ml.errors import ModelPayloadInvalid
from ml.models.sklearn_model import SklearnModel, prepared, scores_of
from ml.training.fitting import Best, check_parts, chosen
from ml.training.losses import log_losses
from ml.training.protocol import Fitted, TrainingImpossible, Watch
from ml.training.table import Table

GROWTH = 20  # trees, or rounds of boosting, between two looks at the loss


@dataclass(frozen=True, slots=True)
class _Kind:
    """A classifier: what counts its trees, whether it takes missing values, and whether it wants them on one scale."""

    make: Any
    grown_by: str = ""
    takes_missing: bool = False
    scaled: bool = False


_KINDS = {
    f"sklearn.{module}.{kind.make.__name__}": kind
    for module, kind in (
        ("ensemble", _Kind(HistGradientBoostingClassifier, "max_iter", takes_missing=True)),
        ("ensemble", _Kind(RandomForestClassifier, "n_estimators", takes_missing=True)),
        ("ensemble", _Kind(ExtraTreesClassifier, "n_estimators")),
        ("ensemble", _Kind(GradientBoostingClassifier, "n_estimators")),
        ("tree", _Kind(DecisionTreeClassifier, takes_missing=True)),
        ("linear_model", _Kind(LogisticRegression, scaled=True)),
        ("naive_bayes", _Kind(GaussianNB)),
    )
}
# What would shuffle the data, draw without the seed, or split in a way that is not served.
_OURS = frozenset(
    {
        "categorical_features",
        "early_stopping",
        "init",
        "n_iter_no_change",
        "n_jobs",
        "oob_score",
        "random_state",
        "scoring",
        "validation_fraction",
        "verbose",
        "warm_start",
    }
)


class _Parameters(msgspec.Struct, frozen=True):
    estimator: str = "sklearn.ensemble.HistGradientBoostingClassifier"
    early_stopping_rounds: Annotated[int, msgspec.Meta(ge=1)] = 50


class SklearnTrainer:
    """Trains a `sklearn` model: parameter `estimator` says which, all others but `early_stopping_rounds` are its own.

    Estimators that count trees are given 20 more at a time, until `early_stopping_rounds` of them have not lowered
    the log loss on the validation data, and are served as they were at its lowest. A missing value is replaced by the
    median where the estimator takes none. Nothing is kept on the way: scikit-learn cannot go on to the same model.

    All but the forests train on one thread, because otherwise sums depend on the number of threads.
    """

    name: ClassVar[str] = "sklearn"
    algorithm: ClassVar[str] = "sklearn"

    def __init__(
        self, feature_names: tuple[str, ...], classes: int = 1, *, seed: int = 0, threads: int = 1, **parameters: Any
    ) -> None:
        own = {name: value for name, value in parameters.items() if name in _Parameters.__struct_fields__}
        self._parameters = chosen(self.name, own, _Parameters)
        self._kind = _kind_of(self._parameters.estimator)
        self._estimator = _estimator(self._kind, {n: v for n, v in parameters.items() if n not in own}, seed, threads)
        self._n_features = len(feature_names)
        self._classes = classes
        self._seed = seed
        self._threads = threads
        self._require_storable()

    def fit(self, train: Table, validation: Table, watch: Watch, resume: bytes = b"") -> Fitted:
        """Train on `train`, stop early by `validation`. See `Trainer.fit`; it always begins at the beginning."""
        check_parts(train, validation, self._n_features, self._classes)
        before = self._preparing(train)
        with warnings.catch_warnings(record=True) as caught, threadpool_limits(1):
            warnings.simplefilter("always")
            try:
                estimator, best, limit = self._grown(before, train, validation, watch)
            except ValueError as error:
                raise self._refused(error) from error
        model = SklearnModel.from_steps([*before, estimator], self._n_features, self._classes, threads=self._threads)
        falling = best.still_falling(limit) if self._kind.grown_by else ()
        return Fitted(
            algorithm=self.algorithm,
            payload=model.dump(),
            loss=best.loss,
            rounds=best.rounds,
            parameters={**_plain(self._estimator), **msgspec.structs.asdict(self._parameters), "seed": self._seed},
            notes=(*falling, *sorted({str(one.message).partition("\n")[0] for one in caught})),
        )

    def _require_storable(self) -> None:
        """Fit to a handful of rows, for what only a fit or a file refuses. Takes about 50 ms."""
        classes = max(self._classes, 2)
        rows = np.random.default_rng(0).normal(size=(8 * classes, self._n_features))
        tried = copy.deepcopy(self._estimator)
        small = {self._kind.grown_by: 1, "max_samples": None}  # which may be more rows than there are here
        tried.set_params(**{name: value for name, value in small.items() if name in tried.get_params()})
        with warnings.catch_warnings(), threadpool_limits(1):
            warnings.simplefilter("ignore")
            try:
                SklearnModel.from_steps(
                    [_bare(tried.fit(rows, np.arange(len(rows)) % classes))], self._n_features, self._classes
                )
            except (ValueError, ModelPayloadInvalid) as error:
                raise self._refused(error) from error

    def _refused(self, error: Exception) -> TrainingImpossible:
        return TrainingImpossible(f"{self._kind.make.__name__} cannot take these parameters: {error}")

    def _preparing(self, train: Table) -> list[Any]:
        """Return the fitted steps that stand before the classifier."""
        rows = prepared((), train.matrix)
        steps: list[Any] = []
        if not self._kind.takes_missing:
            steps.append(SimpleImputer(strategy="median", keep_empty_features=True))
            rows = steps[-1].fit_transform(rows)
        if self._kind.scaled:
            steps.append(StandardScaler().fit(rows))
        return steps

    def _grown(self, before: list[Any], train: Table, validation: Table, watch: Watch) -> tuple[Any, Best, int]:
        """Return the estimator as it was at the lowest loss, that, and how many rounds it could have had."""
        estimator, counter = copy.deepcopy(self._estimator), self._kind.grown_by
        rows, judged = (prepared(before, table.matrix) for table in (train, validation))
        rows[:, np.isnan(rows).all(axis=0)] = 0.0  # a column that nobody knows; of nothing no histogram is made
        limit = int(estimator.get_params()[counter]) if counter else 1
        best, kept, rounds = Best(), estimator, 0
        while rounds < limit and rounds - best.rounds < self._parameters.early_stopping_rounds:
            rounds = min(rounds + GROWTH, limit)
            if counter:
                estimator.set_params(**{counter: rounds})
            estimator.fit(rows, train.labels, train.weights)
            scores = scores_of(estimator, judged, self._classes)
            loss = float(np.average(log_losses(scores, validation.labels), weights=validation.weights))
            if best.saw(loss, rounds):
                kept = copy.deepcopy(estimator)
            watch.progress(rounds, limit, loss)
        return _bare(kept), best, limit


def _bare(estimator: Any) -> Any:
    """Take away what only training needs, so that equal models are equal bytes."""
    for name, value in (("n_jobs", None), ("warm_start", False), ("_feature_subsample_rng", None)):
        if hasattr(estimator, name):
            setattr(estimator, name, value)
    return estimator


def _kind_of(estimator: str) -> _Kind:
    if estimator not in _KINDS:
        raise TrainingImpossible(f"trainer sklearn has no estimator {estimator!r}; it has: {', '.join(sorted(_KINDS))}")
    return _KINDS[estimator]


def _estimator(kind: _Kind, given: Mapping[str, Any], seed: int, threads: int) -> Any:
    """Return the estimator, not yet fitted. Raises TrainingImpossible for parameters it does not know or cannot use."""
    name = kind.make.__name__
    estimator = kind.make()
    known = estimator.get_params()
    if unknown := sorted(set(given) - (set(known) - _OURS)):
        raise TrainingImpossible(
            f"{name} has no parameter {unknown[0]!r} here; it has: {', '.join(sorted(set(known) - _OURS))}"
        )
    fixed = {
        "random_state": seed % 2**32,
        "n_jobs": threads if kind.make in (RandomForestClassifier, ExtraTreesClassifier) else None,
        "warm_start": bool(kind.grown_by),
        "early_stopping": False,
    }
    estimator.set_params(**{name: value for name, value in fixed.items() if name in known}, **given)
    try:
        estimator._validate_params()
    except ValueError as error:
        raise TrainingImpossible(f"{name} cannot take these parameters: {error}") from error
    return estimator


def _plain(estimator: Any) -> dict[str, str | int | float | bool | None]:
    """Return the parameters that may be given, with the defaults that hold."""
    return {
        name: value
        for name, value in estimator.get_params().items()
        if name not in _OURS and (value is None or isinstance(value, str | int | float | bool))
    }
