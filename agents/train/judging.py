"""What a candidate is worth: measured on rows that it has not seen, beside the champion, and judged by the gates."""

from dataclasses import dataclass, replace

import numpy as np

from agents.baselines import scores_of
from agents.evaluate import rules_of as evaluation_rules_of
from agents.judge.stage import rules_of as drift_rules_of
from agents.replay.windows import alerts_on
from agents.shadows import finite_rows
from agents.shelf import opener, require_match
from agents.train.faults import told
from agents.train.job import Job
from ml.drift.baseline import make_baseline
from ml.drift.counting import Counter
from ml.drift.judgement import Judgement
from ml.drift.judgement import judge as judge_drift
from ml.errors import ModelError
from ml.evaluation.tally import Scoring
from ml.models.protocol import Model, Scores
from ml.training.comparison import Metric, NotComparable, compare
from ml.training.gates import Champion, Gate, GateRules, judge
from ml.training.importance import Importance, permutation_importance
from ml.training.measure import Measures, measure
from ml.training.protocol import TrainingImpossible
from ml.training.split import Split
from ml.training.table import Table
from schemas.errors import PenstockError, RetryableError
from schemas.events import ModelVersion
from schemas.streams import StreamSpec
from schemas.training import GatesSpec
from stores.artifacts import ArtifactStore


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """All that was found out about a candidate. `champion` is what the champion is worth on the same test rows.

    `test_at_best` is the test at the threshold with the best F1 on the validation rows, where there is one. `drift`
    says how the features of the test rows differ from those of the training rows.
    """

    validation: Measures
    test: Measures
    test_at_best: Measures | None
    champion: Measures | None
    against: Champion | None
    gates: tuple[Gate, ...]
    importance: tuple[Importance, ...]
    drift: Judgement

    @property
    def passed(self) -> bool:
        """Whether every gate did."""
        return all(gate.passed for gate in self.gates)


def judge_candidate(job: Job, model: Model, parts: Split, store: ArtifactStore, seed: int) -> Judged:
    """Measure `model` on validation and test rows, compare it with the champion, and ask the gates.

    Raises TrainingImpossible when the model gives no score for some row, and RetryableError when the store is away.
    """
    spec = job.spec
    scoring = evaluation_rules_of(spec)[0]
    rules = gate_rules_of(spec)
    scores = _finite(model, parts.test, "the candidate")
    test = measure(scores, parts.test, scoring)
    champions, against = None, None
    if job.champion is not None:
        champions, against = _against(job, job.champion, scores, parts.test, scoring, rules, store)
    validation = measure(_finite(model, parts.validation, "the candidate"), parts.validation, scoring)
    best = validation.best
    at_best = None if best is None else measure(scores, parts.test, replace(scoring, threshold=best.threshold))
    return Judged(
        validation=validation,
        test=test,
        test_at_best=at_best,
        champion=champions,
        against=against,
        gates=judge(rules, test, against),
        importance=permutation_importance(model, spec.features, parts.test, scoring, seed),
        drift=drift_between(spec, parts.train, parts.test),
    )


def gate_rules_of(spec: StreamSpec) -> GateRules:
    """Return what the stream's declaration says of the gates, in the words of `ml`."""
    gates = spec.training.gates if spec.training is not None else GatesSpec()
    usual: Metric = "log_loss" if spec.task == "multiclass" else "roc_auc"
    return GateRules(
        metric=gates.metric or usual,
        min_gain=gates.min_gain,
        alpha=gates.alpha,
        min_auc=gates.min_auc,
        min_precision=gates.min_precision,
        min_recall=gates.min_recall,
        backtest=gates.backtest,
    )


def drift_between(spec: StreamSpec, before: Table, after: Table) -> Judgement:
    """Return how the features of `after` have drifted from those of `before`, as the stream judges drift."""
    baseline = make_baseline(before.matrix, spec.features, bins=spec.drift.bins)
    return judge_drift(baseline, Counter(baseline).count(after.matrix), drift_rules_of(spec.drift))


def _against(
    job: Job,
    champion: ModelVersion,
    scores: Scores,
    test: Table,
    scoring: Scoring,
    rules: GateRules,
    store: ArtifactStore,
) -> tuple[Measures | None, Champion]:
    """Return what the champion is worth on the test rows, and how the candidate differs; or why nobody can tell.

    A learner's snapshot has learnt from the rows as their labels came, so asked again it would know the answers. What
    was served at the time, by it or by what it came after, stands for its scores, on the rows that have some.
    """
    served = finite_rows(test.served)
    as_served = bool(champion.lineage) and bool(served.any())
    if as_served:
        scores, test = scores[served], test.rows(served)
    try:
        its = test.served if as_served else _champions_scores(job, champion, test, store)
    except RetryableError:
        raise
    except (PenstockError, ModelError) as error:
        return None, Champion(incomparable=f"the champion gives no scores to compare with: {error}")
    measured = measure(its, test, scoring)
    alerts = alerts_on(job.spec, test, scores, its) if rules.backtest else None
    found = Champion(alerts=alerts, known=_known_share(champion, test), as_served=as_served)
    try:
        difference = compare(rules.metric, scores, its, test, scoring, rules.alpha)
    except NotComparable as error:
        return measured, replace(found, incomparable=str(error))
    return measured, replace(found, difference=difference)


def _known_share(champion: ModelVersion, test: Table) -> float | None:
    """Return the share of the test rows that the champion has learnt from; None when that is not recorded."""
    if champion.training_to_time_ms is None:
        return None
    return float(np.mean(test.event_time_ms < champion.training_to_time_ms))


def _champions_scores(job: Job, champion: ModelVersion, test: Table, store: ArtifactStore) -> Scores:
    """Return what the champion makes of the test rows. It is opened only when its signature and hash are right."""
    require_match(job.spec, champion)
    try:
        model = opener(store, job.resources.signer, job.resources.threads)(champion)
        return _finite(model, test, f"model {champion.model_id}")
    except (PenstockError, ModelError):
        raise
    except Exception as error:  # a model may come from any package, and raise anything
        raise ModelError(f"model {champion.model_id} cannot be used: {told(error)}") from error


def _finite(model: Model, table: Table, who: str) -> Scores:
    """Return the scores of all rows. Raises TrainingImpossible when one is none."""
    scores = scores_of(model, table.matrix)
    if missing := len(table) - int(np.count_nonzero(finite_rows(scores))):
        raise TrainingImpossible(f"{who} gives no score for {missing} of {len(table)} rows")
    return scores
