"""`penstock explain`."""

import random
import secrets
from collections.abc import Sequence
from typing import Final

import click

from app.cli.context import Context, json_option, pass_context, run, stream_option
from app.cli.types import TimeType, place_of, require_order
from app.clock import now_ms
from app.explain import Examined, Explainer, Explanation, examine_sample
from app.explain_report import document_of, lines_of, place_text, sample_document, sample_lines
from app.models import read_registry
from app.prediction_log import Logged, Place, PredictionLog, prediction_log
from app.registry import model_opener
from app.settings import Settings
from app.text import second
from schemas.errors import PenstockError
from schemas.streams import StreamSpec
from stream.connection import KafkaConnection

_SHOWN: Final = 10


@click.command()
@click.argument("prediction", required=False, metavar="[PARTITION:OFFSET | EVENT_ID]")
@stream_option
@click.option("--from", "from_ms", type=TimeType(), help="When an EVENT_ID's prediction was logged at the earliest.")
@click.option("--to", "to_ms", type=TimeType(), help="When it was logged at the latest; default: now.")
@click.option("--random", "count", type=click.IntRange(min=1), help="Instead, execute so many random predictions.")
@click.option("--seed", type=int, help="Choose the same random predictions as another time, if they are still held.")
@json_option
@pass_context
def explain(
    context: Context,
    prediction: str | None,
    stream_name: str | None,
    from_ms: int | None,
    to_ms: int | None,
    count: int | None,
    seed: int | None,
) -> None:
    """Show why a prediction is what it is: execute its very model again on the logged features.

    PARTITION:OFFSET is the place of the prediction's record in <stream>.predictions. An EVENT_ID is searched for among
    what was logged from --from to --to: ISO 8601 times, UTC unless they say otherwise, of the wall clock at which the
    prediction was written, not of the event. The model is found by its hash, and its signature is checked. Exit code 1
    when a score is not reproduced (to the bit for XGBoost, within 1e-12 for 64-bit scores) or could not be executed.

    Contributions are SHAP values, in log-odds, for XGBoost; for other models Shapley values of the score against
    100 predictions logged nearest to it.
    """
    if (prediction is None) == (count is None):
        raise click.UsageError("give either PARTITION:OFFSET, or EVENT_ID with --from, or --random N")
    if (seed is not None and count is None) or ((from_ms, to_ms) != (None, None) and count is not None):
        raise click.UsageError("--seed belongs to --random, and --from and --to to an EVENT_ID")
    require_order(from_ms, to_ms, "--from", "--to")
    settings = context.settings()
    spec = context.stream(settings, stream_name)
    connection = context.connection(settings)
    if count is not None:
        seed = secrets.randbits(32) if seed is None else seed
        examined = run(examine_sample(connection, settings, spec, count, random.Random(seed)))
        document = sample_document(spec, count, seed, examined)
        context.write(document, lambda: "\n".join(sample_lines(document)))
    else:
        sought = _sought(prediction or "", from_ms, to_ms)
        explanation = run(_explained(connection, settings, spec, sought))
        examined = [explanation.examined]
        context.write(document_of(spec, explanation), lambda: "\n".join(lines_of(spec, explanation)))
    _require_same(examined)


_Sought = Place | tuple[str, int, int]


def _sought(text: str, from_ms: int | None, to_ms: int | None) -> _Sought:
    """Return a place, or an event id and between which moments to look for it."""
    if from_ms is not None:
        return text, from_ms, now_ms() if to_ms is None else to_ms
    place = place_of(text)
    if place is None or to_ms is not None:
        raise click.UsageError(
            f"{text!r} is no partition and offset, such as 3:1204; an event's id needs --from, and may have --to"
        )
    return place


async def _explained(connection: KafkaConnection, settings: Settings, spec: StreamSpec, sought: _Sought) -> Explanation:
    explainer = Explainer(await read_registry(connection, spec), model_opener(settings), spec.threshold)
    async with prediction_log(connection, spec) as log:
        logged = await log.at(sought) if len(sought) == 2 else await _only(log, *sought)
        return await explainer.explain(logged, log)


async def _only(log: PredictionLog, event_id: str, from_ms: int, to_ms: int) -> Logged:
    """Return the one prediction of an event in that time. Raises PenstockError when there is none, or more."""
    found = await log.of_event(event_id, from_ms, to_ms)
    if not found:
        raise PenstockError(
            f"no prediction of event {event_id!r} was logged from {second(from_ms)} to {second(to_ms)} UTC "
            "(the time at which it was scored)"
        )
    if len(found) > 1:
        raise PenstockError(
            f"event {event_id!r} has {len(found)} predictions in that time; give the place of one of them: "
            f"{', '.join(place_text(logged.place) for logged in found[:_SHOWN])}"
        )
    return found[0]


def _require_same(examined: Sequence[Examined]) -> None:
    wrong, lost = sum(len(one.wrong) for one in examined), sum(one.not_executed for one in examined)
    found = []
    if wrong:
        found.append(
            f"{wrong:,} of these scores {'was' if wrong == 1 else 'were'} not reproduced (the record was changed, or "
            "it was not this model on this library that made it)"
        )
    if lost:
        found.append(
            f"{lost:,} could not be executed again, so that nothing is known of {'it' if lost == 1 else 'them'}"
        )
    if found:
        raise PenstockError("; ".join(found))
