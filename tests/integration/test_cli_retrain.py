"""`penstock retrain --wait` with a worker that really trains, on both brokers."""

import pytest

from tests.command_line import Deployment, Penstock

pytestmark = pytest.mark.usefixtures("no_settings")
TABLES = """
[streams.{stream}.training]
attempts = 1
"""


def test_a_stream_without_samples_ends_in_a_sentence_and_not_in_a_model(here: Deployment, penstock: Penstock) -> None:
    ended = penstock("retrain", "--wait", "--json", "--timeout", "90")
    assert ended.code == 1, (ended, here.log)
    outcome = ended.document
    assert (outcome["outcome"], outcome["reasons"]) == ("failed", ["manual"])
    assert "has no sample yet" in outcome["message"]
    [run] = penstock("runs", "list", "--json").document
    assert run == outcome
    phases = [phase["phase"] for phase in penstock("runs", "show", run["run_id"], "--json").document["phases"]]
    assert phases[-1] == "ended"
    assert "read" in phases
    assert penstock("models", "list").out == "No model is registered.\n"
