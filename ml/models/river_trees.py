"""river's Hoeffding tree and adaptive random forest.

A missing value is left out of the row that river gets: a split on it sends the row where most rows went, and no
leaf learns from it.

Three things differ from river, none of them in a score. What stands for a Gaussian has no random generator of its own:
river's draws nothing, and each one takes 2.5 KB and would make two dumps of one model differ. The size is bounded by
`max_depth` rather than by megabytes, which river measures in a way that depends on how objects came to lie in memory.
And the forest's accuracies are counted without confusion matrices, which need `functools.partial` in the pickle.
"""

import math
from collections.abc import Iterator, Set
from typing import Annotated, Any, ClassVar, Literal, Self

import msgspec
import numpy as np
from numpy.typing import NDArray
from river.base import Base
from river.forest import ARFClassifier
from river.tree import HoeffdingTreeClassifier
from river.tree.nodes.branch import NumericBinaryBranch
from river.tree.nodes.htc_nodes import LeafNaiveBayesAdaptive
from river.tree.splitter import GaussianSplitter
from river.utils.math import norm_cdf

from ml.errors import ModelPayloadInvalid
from ml.models.canonical import fingerprint
from ml.models.parameters import checked, require_same
from ml.models.protocol import Labels, Matrix, Scores, check_learnable, check_matrix, known_values
from ml.models.sealing import seal, unseal
from ml.models.unpickling import ClassName

_TREE_CLASSES = frozenset(
    {
        ("ml.models.river_trees", "Estimate"),
        ("ml.models.river_trees", "Observer"),
    }
)
# By river's own measure; never asked, see above.
_NO_SIZE_CHECK = {"max_size": float(2**20), "memory_estimate_period": 2**62}
_MOST_WEIGHT = 100.0
_HALF_LOG_TAU = 0.5 * math.log(math.tau)


class Estimate:
    """What a leaf knows of the values of one class in one column: river's `Gaussian`, and their range.

    Three numbers of its density are computed when a value is learnt, and not again for each vote. It has slots
    because pickling gives an object without them a dict, which makes each look at its attributes slower from then on.
    """

    __slots__ = ("half_log", "maximum", "mean", "minimum", "n_samples", "spread", "squares")

    def __init__(
        self,
        n_samples: float = 0.0,
        mean: float = 0.0,
        squares: float = 0.0,
        minimum: float = math.inf,
        maximum: float = -math.inf,
    ) -> None:
        """`n_samples` is the weight of the values, `squares` the weighted sum of squared deviations from `mean`."""
        self.n_samples = n_samples
        self.mean = mean
        self.squares = squares
        self.minimum = minimum
        self.maximum = maximum
        self._prepare()

    def __reduce__(self) -> tuple[Any, ...]:
        return Estimate, (self.n_samples, self.mean, self.squares, self.minimum, self.maximum)

    def update(self, value: float, weight: float) -> None:
        """Take one value, as river's Gaussian does."""
        before = self.mean
        self.n_samples += weight
        self.mean = mean = before + (weight / self.n_samples) * (value - before)
        self.squares += weight * (value - before) * (value - mean)
        if value < self.minimum:
            self.minimum = value
        if value > self.maximum:
            self.maximum = value
        self._prepare()

    def cdf(self, value: float) -> float:
        """Return the share of the values that is at most `value`, were they normal."""
        deviation = self._variance**0.5
        return float(norm_cdf((value - self.mean) / deviation)) if deviation else 0.0

    def log_pdf(self, value: float) -> float:
        """Return the log of the normal density at `value`; of fewer than two different values that is not known: 0."""
        return (value - self.mean) ** 2 / self.spread - _HALF_LOG_TAU - self.half_log

    @property
    def _variance(self) -> float:
        return self.squares / (self.n_samples - 1) if self.n_samples > 1 else 0.0

    def _prepare(self) -> None:
        """Keep minus twice the variance, and half the log of it, for `log_pdf`."""
        if self.n_samples > 1 and (variance := self.squares / (self.n_samples - 1)) > 0.0:
            self.spread = -2.0 * variance
            self.half_log = 0.5 * math.log(variance)
        else:  # then the log of the density comes to exactly 0
            self.spread = -math.inf
            self.half_log = -_HALF_LOG_TAU


_NOTHING = Estimate()  # of a class that has no value in the column


class Observer(GaussianSplitter):  # type: ignore[misc]  # river has no types
    """river's GaussianSplitter, with the estimates above."""

    def __init__(self, n_splits: int = 10) -> None:
        self.n_splits = n_splits
        self._att_dist_per_class: dict[int, Estimate] = {}

    @property
    def _min_per_class(self) -> dict[int, float]:
        return {label: estimate.minimum for label, estimate in self._att_dist_per_class.items()}

    @property
    def _max_per_class(self) -> dict[int, float]:
        return {label: estimate.maximum for label, estimate in self._att_dist_per_class.items()}

    def clone(self, new_params: dict[str, Any] | None = None, include_attributes: bool = False) -> "Observer":
        return Observer(self.n_splits)

    def update(self, att_val: float, target_val: int, w: float) -> None:
        self.estimate(target_val).update(att_val, w)

    def estimate(self, label: int) -> Estimate:
        """Return the estimate of a class, which may be new."""
        estimate = self._att_dist_per_class.get(label)
        if estimate is None:
            estimate = self._att_dist_per_class[label] = Estimate()
        return estimate


class Branch(NumericBinaryBranch):  # type: ignore[misc]
    """river's numeric branch, whose walk takes one generator for the whole path instead of one in another per node."""

    def walk(self, x: dict[int, float], until_leaf: bool = True) -> Iterator[Any]:
        node = self
        while type(node) is Branch:
            yield node
            value = x.get(node.feature)
            if value is not None:
                node = node.children[value > node.threshold]
            elif until_leaf:
                node = node.most_common_path()[1]
            else:
                return
        yield node


class Leaf(LeafNaiveBayesAdaptive):  # type: ignore[misc]
    """river's adaptive naive Bayes leaf, which tells its tree what it predicted for a row before it learnt that."""

    # The estimates by class and column, where every class has the columns in the order of the observers.
    _by_class: dict[int, dict[int, Estimate]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_by_class"}

    def learn_one(self, x: dict[int, float], y: int, *, w: float = 1.0, tree: "Tree") -> None:
        """Do what river's leaf does, which makes these predictions for itself; see LeafNaiveBayesAdaptive."""
        majority = predicted = _majority(self.stats)
        if self.is_active():
            bayes = self._bayes(x)
            if self._nb_correct_weight >= self._mc_correct_weight:
                predicted = bayes
            if not majority or max(majority, key=majority.__getitem__) == y:
                self._mc_correct_weight += w
            if bayes and max(bayes, key=bayes.__getitem__) == y:
                self._nb_correct_weight += w
            self._update_estimates(x, y, w)
        self.update_stats(y, w)
        tree.predicted = predicted

    def prediction(self, x: dict[int, float], *, tree: "Tree") -> dict[int, float]:
        if self.is_active() and self._nb_correct_weight >= self._mc_correct_weight:
            return self._bayes(x)
        return _majority(self.stats)

    def deactivate(self) -> None:
        super().deactivate()
        self._by_class = None

    def _update_estimates(self, x: dict[int, float], y: int, w: float) -> None:
        by_class = self._estimates()
        if y not in by_class:
            by_class[y] = dict.fromkeys(self.splitters, _NOTHING)
        ours = by_class[y]
        for column, value in x.items():
            estimate = ours.get(column)
            if estimate is None or estimate is _NOTHING:
                estimate = self._new_estimate(by_class, column, y)
            estimate.update(value, w)

    def _new_estimate(self, by_class: dict[int, dict[int, Estimate]], column: int, label: int) -> Estimate:
        if column not in self.splitters:
            self.splitters[column] = self.splitter.clone()
            for estimates in by_class.values():
                estimates[column] = _NOTHING
        estimate: Estimate = self.splitters[column].estimate(label)
        by_class[label][column] = estimate
        return estimate

    def _estimates(self) -> dict[int, dict[int, Estimate]]:
        """Return the observers' estimates; they are gathered when there are new observers and after unpickling."""
        if self._by_class is None:
            seen = {column: observer._att_dist_per_class for column, observer in self.splitters.items()}
            labels = {label: None for estimates in seen.values() for label in estimates}
            self._by_class = {
                label: {column: estimates.get(label, _NOTHING) for column, estimates in seen.items()}
                for label in labels
            }
        return self._by_class

    def _bayes(self, x: dict[int, float]) -> dict[int, float]:
        """Return the shares of the classes by naive Bayes, as river's `do_naive_bayes_prediction` does.

        Its calls for each value and class (`cond_log_proba`, `log_pdf`) are written out: half the time.
        """
        total = sum(self.stats.values())
        if not total:
            return {}
        by_class, half_log_tau, lowest = self._estimates(), _HALF_LOG_TAU, -math.inf
        values = [x.get(column, math.nan) for column in self.splitters]
        votes = {}
        for label, weight in self.stats.items():
            share = weight / total  # 0 also where a weight is next to nothing beside the others: river's log would fail
            vote = math.log(share) if share > 0 else -math.inf if weight > 0 else 0.0
            if share > 0 and label in by_class:
                for value, estimate in zip(values, by_class[label].values()):  # noqa: B905  # as long, and strict is slower
                    density = (value - estimate.mean) ** 2 / estimate.spread - half_log_tau - estimate.half_log
                    if density > lowest:  # nor is it where the value is missing
                        vote += density
            votes[label] = vote
        most = max(votes.values())
        whole = most + math.log(sum([math.exp(vote - most) for vote in votes.values()]))
        return {label: math.exp(vote - whole) for label, vote in votes.items()}


def _majority(stats: dict[int, float]) -> dict[int, float]:
    """Return the shares of the classes, as river's majority leaf does."""
    total = sum(stats.values())
    if not total:
        return dict(stats)
    share = 1 / total
    return {label: weight * share for label, weight in stats.items()}


class Tree(HoeffdingTreeClassifier):  # type: ignore[misc]
    """river's Hoeffding tree with the leaves above. `predicted` is what the last row scored before it was learnt."""

    predicted: dict[int, float]

    def _new_leaf(self, initial_stats: dict[int, float] | None = None, parent: Any = None) -> Leaf:
        return Leaf(initial_stats or {}, 0 if parent is None else parent.depth + 1, self.splitter)

    def _branch_selector(self, numerical_feature: bool = True, multiway_split: bool = False) -> type[Branch]:
        return Branch

    def _estimate_model_size(self) -> None:
        """Not at all: see the head of this module."""


class Accuracy(Base):  # type: ignore[misc]
    """The share of right predictions so far, as in `river.metrics.Accuracy`."""

    def __init__(self) -> None:
        self.right = 0
        self.all = 0

    def update(self, y_true: int, y_pred: int | None) -> None:
        self.right += y_true == y_pred
        self.all += 1

    def get(self) -> float:
        return self.right / self.all if self.all else 0.0


class _TreeParameters(msgspec.Struct, frozen=True):
    grace_period: Annotated[int, msgspec.Meta(ge=1)] = 200
    max_depth: Annotated[int, msgspec.Meta(ge=1, le=60)] = 12
    split_criterion: Literal["gini", "info_gain", "hellinger"] = "info_gain"
    delta: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 1e-7
    tau: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.05


class _ForestParameters(_TreeParameters, frozen=True):
    n_models: Annotated[int, msgspec.Meta(ge=1, le=100)] = 10
    grace_period: Annotated[int, msgspec.Meta(ge=1)] = 50
    max_depth: Annotated[int, msgspec.Meta(ge=1, le=60)] = 10
    delta: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.01
    lambda_value: Annotated[int, msgspec.Meta(ge=1, le=100)] = 6
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0


class _RiverClassifier:
    """What the two have in common: a river classifier that takes one row at a time, and its bytes."""

    algorithm: ClassVar[str]
    _classes_in_pickle: ClassVar[Set[ClassName]]
    _memory_per_byte: ClassVar[float]  # resident memory for each byte of the dump, measured with 10 features

    def __init__(self, n_features: int, classes: int, parameters: _TreeParameters, classifier: Any) -> None:
        self.n_features = n_features
        self.classes = classes
        self._parameters = parameters
        self._classifier = classifier
        self._dumped_bytes: int | None = None  # the length of its dump, until it learns

    @property
    def memory_bytes(self) -> int:
        size = len(self.dump()) if self._dumped_bytes is None else self._dumped_bytes
        return int(size * self._memory_per_byte)

    def predict(self, matrix: Matrix) -> Scores:
        check_matrix(matrix, self.n_features)
        predicted = [self._predict_one(known) for known in known_values(matrix)]
        return self._scores(predicted)

    def _predict_one(self, known: dict[int, float]) -> dict[int, float]:
        shares: dict[int, float] = self._classifier.predict_proba_one(known)
        return shares

    def _scores(self, predicted: list[dict[int, float]]) -> Scores:
        labels = range(max(self.classes, 2))
        scores = np.array([[shares.get(label, 0.0) for label in labels] for shares in predicted], dtype=np.float64)
        scores = scores.reshape(-1, len(labels))
        scores[~scores.any(axis=1)] = 1 / len(labels)  # nothing learnt yet: river gives no prediction at all
        return scores[:, 1].copy() if self.classes == 1 else scores

    def retune(self, **parameters: Any) -> None:
        """Accept what it has: no parameter can change. See `Learner.retune`."""
        require_same(self.algorithm, parameters, self._parameters)

    def canonical(self) -> bytes:
        return fingerprint((self.n_features, self.classes, self._classifier))

    def dump(self) -> bytes:
        parameters = msgspec.json.encode(self._parameters)
        payload = seal(self.algorithm, (self.n_features, self.classes, parameters, self._classifier))
        self._dumped_bytes = len(payload)
        return payload

    @classmethod
    def load(cls, payload: bytes, *, threads: int = 1) -> Self:
        """Return the model in `payload`; `threads` changes nothing. See `Model.load`."""
        match unseal(cls.algorithm, payload, cls._classes_in_pickle):
            case (int(n_features), int(classes), bytes(parameters), classifier):
                model = cls(n_features, classes, **msgspec.json.decode(parameters))
                if type(classifier) is type(model._classifier):
                    model._classifier = classifier
                    model._dumped_bytes = len(payload)
                    return model
        raise ModelPayloadInvalid(f"this {cls.algorithm} model holds something else than its classifier")


class RiverHoeffdingTreeModel(_RiverClassifier):
    """A Hoeffding tree (Domingos and Hulten, 2000, doi:10.1145/347090.347107): `HoeffdingTreeClassifier` of river.

    Scores are river's to the last digit; before anything was learned every outcome is equally likely.
    `max_depth` bounds its size: 12 is at most 4,096 leaves. Nothing is drawn at random.
    Learning 10 features takes about 25 µs per row, scoring 6 µs.
    """

    algorithm: ClassVar[str] = "river-hoeffding-tree"
    heavy: ClassVar[bool] = False
    by_row: ClassVar[bool] = True
    _classes_in_pickle = _TREE_CLASSES | {("ml.models.river_trees", name) for name in ("Branch", "Leaf", "Tree")}
    _memory_per_byte = 9.0

    def __init__(self, n_features: int, classes: int = 1, **parameters: Any) -> None:
        chosen = checked(self.algorithm, parameters, _TreeParameters)
        tree = Tree(splitter=Observer(), **msgspec.structs.asdict(chosen), **_NO_SIZE_CHECK)
        super().__init__(n_features, classes, chosen, tree)

    def learn(self, matrix: Matrix, labels: Labels, weights: NDArray[np.float64] | None = None) -> Scores:
        """Do river's `learn_one` for each row that has weight, in order. See `Learner.learn`."""
        weights = check_learnable(matrix, labels, weights, self.n_features, self.classes)
        tree, predicted = self._classifier, []
        self._dumped_bytes = None
        for known, label, weight in zip(known_values(matrix), labels.tolist(), weights.tolist(), strict=True):
            if weight:
                tree.learn_one(known, label, w=weight)
                predicted.append(tree.predicted)
            else:  # river would divide by the weight that a Gaussian has seen
                predicted.append(self._predict_one(known))
        tree.__dict__.pop("predicted", None)  # no part of what was learnt
        return self._scores(predicted)


class RiverAdaptiveForestModel(_RiverClassifier):
    """An adaptive random forest (Gomes et al., 2017, doi:10.1007/s10994-017-5642-8): river's `ARFClassifier`.

    Scores are river's to the last digit, where the columns are in the order of the names, from which river draws;
    before anything was learned every outcome is equally likely.
    A weight multiplies the rate at which the trees draw a row (`lambda_value`); river itself ignores weights. One
    above 100 counts as 100, and a row without weight is passed over. The generator is seeded by `seed` and is part of
    the model. `max_depth` bounds the size: 10 is at most 1,024 leaves for each tree.
    Learning 10 features with 10 trees takes about 0.6 ms per row, scoring 0.1 ms.
    """

    algorithm: ClassVar[str] = "river-adaptive-forest"
    heavy: ClassVar[bool] = True
    by_row: ClassVar[bool] = True
    _classes_in_pickle = _TREE_CLASSES | {
        ("builtins", "int"),
        ("collections", "defaultdict"),
        ("ml.models.river_trees", "Accuracy"),
        ("random", "Random"),
        ("river._river_rust.drift", "AdaptiveWindowing"),
        ("river.drift.adwin", "ADWIN"),
        ("river.forest.adaptive_random_forest", "ARFClassifier"),
        ("river.forest.adaptive_random_forest", "BaseTreeClassifier"),
        ("river.tree.nodes.arf_htc_nodes", "RandomLeafNaiveBayesAdaptive"),
        ("river.tree.nodes.branch", "NumericBinaryBranch"),
    }
    _memory_per_byte = 9.0

    def __init__(self, n_features: int, classes: int = 1, **parameters: Any) -> None:
        chosen = checked(self.algorithm, parameters, _ForestParameters)
        # "sqrt" would count the features of the first row only, where some may be missing.
        own = {"metric": Accuracy(), "splitter": Observer(), "max_features": max(1, round(math.sqrt(n_features)))}
        forest = ARFClassifier(**own, **msgspec.structs.asdict(chosen), **_NO_SIZE_CHECK)
        super().__init__(n_features, classes, chosen, forest)

    def learn(self, matrix: Matrix, labels: Labels, weights: NDArray[np.float64] | None = None) -> Scores:
        """Score each row, then do river's `learn_one`, in order. See `Learner.learn`."""
        weights = check_learnable(matrix, labels, weights, self.n_features, self.classes)
        forest, predicted = self._classifier, []
        rate = forest.lambda_value
        self._dumped_bytes = None
        for known, label, weight in zip(known_values(matrix), labels.tolist(), weights.tolist(), strict=True):
            predicted.append(self._predict_one(known))
            if weight:
                forest.lambda_value = rate * min(weight, _MOST_WEIGHT)
                forest.learn_one(known, label)
        forest.lambda_value = rate
        return self._scores(predicted)

    def _predict_one(self, known: dict[int, float]) -> dict[int, float]:
        return super()._predict_one(known) if len(self._classifier) else {}  # river would plant its trees now
