"""Explanations for people and as documents: what `penstock explain` prints."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from app.explain import Examined, Explanation, Rescored
from app.prediction_log import Place
from app.text import printable, second, table
from schemas.streams import StreamSpec

_SHOWN: Final = 10
_METHODS: Final = {
    "model": "by the model itself",
    "exact": "Shapley values, exact",
    "sampled": "Shapley values, by sampled orders of the features",
}


def document_of(spec: StreamSpec, explanation: Explanation) -> dict[str, Any]:
    """Return an explanation as `--json` writes it."""
    logged, examined = explanation.examined.logged, explanation.examined
    return {
        "stream": spec.name,
        "place": place_text(logged.place),
        "logged_time_ms": logged.logged_time_ms,
        "identical": not examined.wrong,
        "label": explanation.label,
        "served": _score_document(examined.served),
        "shadows": [_score_document(shadow) for shadow in examined.shadows],
        "contributions": _contributions_document(explanation),
        "why_no_contributions": explanation.why_none,
        "prediction": msgspec.to_builtins(logged.prediction),
    }


def _score_document(said: Rescored) -> dict[str, Any]:
    version = said.version
    return {
        "variant": said.variant,
        "model_id": said.model_id,
        "algorithm": version.algorithm if version else None,
        "version": version.version if version else None,
        "status": version.status if version else None,
        "sha256": version.sha256 if version else None,
        "logged": said.logged,
        "score": said.score,
        "same": said.same,
        "logged_scores": said.logged_scores,
        "scores": said.scores,
        "problem": said.problem,
    }


def _contributions_document(explanation: Explanation) -> dict[str, Any] | None:
    found = explanation.contributions
    if found is None:
        return None
    return {
        "scale": found.scale,
        "method": found.method,
        "of_class": explanation.of_class,
        "background": explanation.background,
        "base": found.base,
        "output": found.output,
        "features": [
            {"feature": name, "value": value, "contribution": contribution}
            for name, value, contribution in _sorted_contributions(explanation)
        ],
    }


def _sorted_contributions(explanation: Explanation) -> list[tuple[str, float | None, float]]:
    """Return name, value and contribution of each feature, the largest first."""
    version, found = explanation.examined.served.version, explanation.contributions
    assert version is not None
    assert found is not None
    features = explanation.examined.logged.prediction.features
    return sorted(zip(version.features, features, found.values.tolist(), strict=True), key=lambda row: -abs(row[2]))


def lines_of(spec: StreamSpec, explanation: Explanation) -> Iterator[str]:
    """Yield an explanation as a person reads it: the prediction, its model, the scores, the contributions."""
    examined = explanation.examined
    logged, served = examined.logged, examined.served
    prediction, version = logged.prediction, served.version
    assert version is not None
    yield (
        f"{spec.name} {place_text(logged.place)}: event {printable(prediction.event_id)} of "
        f"{printable(prediction.entity_id)}, {second(prediction.event_time_ms)} UTC, "
        f"scored {second(prediction.scored_time_ms)} UTC by variant {printable(prediction.variant)}"
    )
    yield (
        f"model {printable(version.model_id)}: {printable(version.algorithm)} {version.version or '(no version)'}, "
        f"{version.status}, sha256 {printable(version.sha256)}"
    )
    now = "" if explanation.label == prediction.label else f" (executed again, {explanation.label})"
    yield printable(f"label {prediction.label}{now}")
    yield ""
    yield from table([("variant", "model", "logged", "executed again", ""), *map(_score_row, _all(examined))], (2, 3))
    if served.scores is not None:
        yield ""
        several = zip(version.classes, served.logged_scores or (), served.scores, strict=False)
        yield from table(
            [("class", "logged", "executed again"), *((n, repr(a), repr(b)) for n, a, b in several)], (1, 2)
        )
    yield ""
    yield from _contribution_lines(explanation)


def _all(examined: Examined) -> tuple[Rescored, ...]:
    return (examined.served, *examined.shadows)


def _score_row(said: Rescored) -> tuple[str, ...]:
    verdict = said.problem or ("the same" if said.same else "NOT THE SAME")
    return (said.variant, said.model_id, repr(said.logged), "-" if said.score is None else repr(said.score), verdict)


def _contribution_lines(explanation: Explanation) -> Iterator[str]:
    found = explanation.contributions
    if found is None:
        yield printable(explanation.why_none)
        return
    of = f" of class {printable(explanation.of_class)}" if explanation.of_class is not None else ""
    rows = f", against {explanation.background} other predictions" if explanation.background else ""
    yield f"Contributions to the {found.scale}{of} ({_METHODS[found.method]}{rows}):"
    yield from table(
        [
            ("feature", "value", "contribution"),
            *(
                (name, "missing" if value is None else f"{value:g}", f"{contribution:+.6f}")
                for name, value, contribution in _sorted_contributions(explanation)
            ),
            ("(base value)", "", f"{found.base:+.6f}"),
            ("(sum)", "", f"{found.output:+.6f}"),
        ],
        (1, 2),
    )


def sample_document(spec: StreamSpec, asked: int, seed: int, examined: Sequence[Examined]) -> dict[str, Any]:
    """Return what became of random predictions, of which `asked` were asked for, as `--json` writes it."""
    shadows = [shadow for one in examined for shadow in one.shadows]
    models = Counter(one.served.model_id for one in examined)
    same = Counter(one.served.model_id for one in examined if one.served.same)
    wrong = [(one, said) for one in examined for said in one.wrong]
    lost = [one for one in examined if one.not_executed]
    return {
        "stream": spec.name,
        "asked": asked,
        "seed": seed,
        "n": len(examined),
        "identical": same.total(),
        "n_not_executed": len(lost),
        "models": {model_id: {"n": n, "identical": same[model_id]} for model_id, n in sorted(models.items())},
        "shadow_scores": {
            "n": len(shadows),
            "identical": sum(shadow.same for shadow in shadows),
            "not_executed": sum(shadow.score is None for shadow in shadows),
        },
        "wrong": [{"place": place_text(one.logged.place), **_score_document(said)} for one, said in wrong[:_SHOWN]],
        "not_executed": _not_executed(lost),
    }


def _not_executed(lost: Sequence[Examined]) -> list[dict[str, Any]]:
    """Return for each model how many of its scores could not be executed, and the problem of the first."""
    counts = Counter(one.served.model_id for one in lost)
    first = {one.served.model_id: one for one in reversed(lost)}
    return [
        {
            "model_id": model_id,
            "n": n,
            "place": place_text(first[model_id].logged.place),
            "problem": first[model_id].served.problem,
        }
        for model_id, n in sorted(counts.items())
    ]


def sample_lines(document: dict[str, Any]) -> Iterator[str]:
    """Yield what `sample_document` returns as a person reads it."""
    fewer = f" (there are no more, of {document['asked']:,} asked for)" if document["n"] < document["asked"] else ""
    yield f"{document['identical']:,} of {document['n']:,} scores are identical{fewer}; seed {document['seed']}"
    for model_id, counts in document["models"].items():
        yield f"  {counts['identical']:,} of {counts['n']:,} by {printable(model_id)}"
    shadows = document["shadow_scores"]
    if shadows["n"]:
        executed = shadows["n"] - shadows["not_executed"]
        yield (
            f"of their shadows' scores, {shadows['identical']:,} of {executed:,} are identical; the models of "
            f"{shadows['not_executed']:,} more are not to be had"
        )
    for said in document["wrong"]:
        why = f"logged {said['logged']!r}, executed again {said['score']!r}"
        yield f"NOT THE SAME: {said['place']} by {printable(said['model_id'])}: {why}"
    for lost in document["not_executed"]:
        yield printable(
            f"COULD NOT BE EXECUTED: {lost['n']:,} by {lost['model_id']}, such as {lost['place']}: {lost['problem']}"
        )


def place_text(place: Place) -> str:
    """Return a place as `penstock explain` takes it."""
    return f"{place[0]}:{place[1]}"
