"""The command line, as a person uses it, where no worker is needed."""

import socket
from collections.abc import Mapping
from pathlib import Path

import pytest

from app.embedded import EmbeddedBroker
from tests.command_line import CANARY, Penstock, free_port, real_command

pytestmark = pytest.mark.usefixtures("no_settings")
STREAM = '[streams.flights]\nfeatures = ["a"]\n'
KAFKA_COMMANDS = [
    ["worker"],
    ["topics", "check"],
    ["topics", "apply"],
    ["stream", "tail", "predictions"],
    ["models", "list"],
    ["models", "show", "m"],
    ["models", "compare", "m", "n"],
    ["models", "promote", "m"],
    ["models", "rollback"],
    ["models", "move", "m", "staging"],
    ["models", "archive", "m"],
    ["models", "shadow", "m"],
    ["models", "unshadow", "m"],
    ["audit"],
    ["experiments", "start", "x", "--variant", "B=m:20"],
    ["experiments", "shares", "x", "B=50"],
    ["experiments", "stop", "x"],
    ["experiments", "list"],
    ["experiments", "show"],
    ["experiments", "assignment", "e1"],
    ["rollouts", "start", "m"],
    ["rollouts", "advance"],
    ["rollouts", "stop"],
    ["rollouts", "show"],
    ["learners", "list"],
    ["learners", "update", "online"],
    ["drift", "baseline", "m", "--events", "100"],
    ["drift", "show"],
    ["dead-letters", "list"],
    ["dead-letters", "replay"],
]


@pytest.mark.parametrize(
    ("toml", "environ", "words"),
    [
        (STREAM, {"ML_KAFKA_BOOTSTRP": "a:1"}, "did you mean ML_KAFKA_BOOTSTRAP?"),
        (f"kafka_bootstrp = 'a:1'\n{STREAM}", {}, "did you mean kafka_bootstrap?"),
        (STREAM, {"ML_METRICS_PORT": "many"}, 'is "many", but must be a whole number from 0 to 65535'),
        (f"{STREAM}partitions = 'x'\n", {}, "must be a whole number"),
        ("no toml", {}, "is not valid TOML"),
        (STREAM, {}, "no Kafka is named"),
        (STREAM, {"ML_KAFKA_BOOTSTRAP": "127.0.0.1:1"}, "nothing listens there"),
    ],
)
def test_what_is_wrong_at_start_is_one_sentence_and_exit_code_2(
    toml: str, environ: Mapping[str, str], words: str
) -> None:
    Path("penstock.toml").write_text(toml)
    ended = real_command("worker", **environ)
    assert ended.is_one_sentence(2), ended
    assert words in ended.err


def test_a_worker_without_a_stream_or_with_a_taken_port_ends_with_one_sentence(embedded: EmbeddedBroker) -> None:
    ended = real_command("worker", ML_KAFKA_BOOTSTRAP=embedded.bootstrap)
    assert ended.is_one_sentence(2), ended
    assert "no stream is declared" in ended.err
    Path("penstock.toml").write_text(STREAM)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])
        ended = real_command("worker", ML_KAFKA_BOOTSTRAP=embedded.bootstrap, ML_METRICS_PORT=port)
    assert ended.is_one_sentence(2), ended
    assert f"metrics_port {port} on 127.0.0.1 cannot be used" in ended.err


def test_a_worker_names_every_learner_that_cannot_learn_and_does_not_begin(embedded: EmbeddedBroker) -> None:
    Path("penstock.toml").write_text(
        f"{STREAM}"
        '[streams.flights.learners.first]\nalgorithm = "xgboost"\n'
        '[streams.flights.learners.second]\nalgorithm = "xgboost-online"\n'
    )
    environ = {"ML_KAFKA_BOOTSTRAP": embedded.bootstrap, "ML_METRICS_PORT": "0", "ML_ONLINE_STRATEGY": "incremental"}
    ended = real_command("worker", **environ)
    first, second = ended.err.splitlines()
    assert (ended.code, ended.out) == (2, "")
    assert first.startswith("penstock: learner first of flights: algorithm 'xgboost' cannot learn from a stream")
    assert second.startswith("learner second of flights: xgboost-online learns from batches")


@pytest.mark.parametrize("arguments", KAFKA_COMMANDS, ids=" ".join)
def test_every_command_says_in_one_sentence_that_kafka_is_not_there(penstock: Penstock, arguments: list[str]) -> None:
    Path("penstock.toml").write_text(STREAM)
    ended = penstock(*arguments, ML_KAFKA_BOOTSTRAP=f"127.0.0.1:{free_port()}")
    assert ended.is_one_sentence(2), ended
    assert "nothing listens there" in ended.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [(["nonsense"], "No such command"), (["dead-letters", "replay", "--offset", "x"], "such as 3:1204")],
)
def test_a_command_that_does_not_exist_is_answered_with_usage(
    penstock: Penstock, arguments: list[str], words: str
) -> None:
    ended = penstock(*arguments)
    assert ended.code == 2
    assert words in ended.err
    assert "Traceback" not in ended.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["experiments", "start", "x", "--variant", "B=m:20", "--max-error-share", "nan"], "not a finite number"),
        (["experiments", "start", "x", "--variant", "B=m:20", "--max-error-share", "5"], "0<=x<=1"),
        (["experiments", "start", "x", "--variant", "B=m:20", "--max-score-psi", "inf"], "not a finite number"),
        (["rollouts", "start", "m", "--alpha", "2"], "0<x<1"),
        (["rollouts", "start", "m", "--margin", "-1"], "x>=0"),
        (["rollouts", "start", "m", "--steps", "10,150"], "at most 100 per cent"),
        (["models", "promote", "m", "--timeout", "0"], "x>0"),
        (["models", "register", "--file", "penstock.toml", "--version", "banana"], "such as 1.2.0"),
        (
            ["models", "register", "--file", "penstock.toml", "--training-from=2026-02-01", "--training-to=2026-01-01"],
            "--training-from is after --training-to",
        ),
        (["explain", "e", "--from=2026-02-01", "--to=2026-01-01"], "--from is after --to"),
    ],
)
def test_what_makes_no_sense_of_a_number_or_a_time_is_answered_with_usage(
    penstock: Penstock, arguments: list[str], words: str
) -> None:
    Path("penstock.toml").write_text(STREAM)
    ended = penstock(*arguments)
    assert (ended.code, ended.out, words in ended.err) == (2, "", True), ended
    assert "$." not in ended.err


def test_a_text_that_is_not_utf_8_is_no_command(penstock: Penstock) -> None:
    Path("penstock.toml").write_text(STREAM)
    ended = penstock("models", "promote", "m", "--reason", "\udcff", ML_KAFKA_BOOTSTRAP=f"127.0.0.1:{free_port()}")
    assert ended.is_refusal("is not UTF-8"), ended


def test_a_command_that_nobody_answers_is_told_as_json_too(penstock: Penstock, embedded: EmbeddedBroker) -> None:
    Path("penstock.toml").write_text('[streams.nobody]\nfeatures = ["a"]\n')
    environ = {"ML_KAFKA_BOOTSTRAP": embedded.bootstrap}
    assert penstock("topics", "apply", **environ).code == 0
    ended = penstock("models", "promote", "m", "--timeout", "0.2", "--json", **environ)
    assert (ended.code, ended.document["outcome"]) == (1, "unanswered"), ended
    assert "control did not answer within 0.2 s" in ended.err


def test_the_version_and_the_help_are_no_errors(penstock: Penstock) -> None:
    assert penstock("--version").out.startswith("penstock, version ")
    assert penstock("dead-letters", "--help").code == 0


def test_a_stream_is_proposed_on_the_screen_or_in_a_file_that_is_never_overwritten(penstock: Penstock) -> None:
    Path("cards.csv").write_text("amount,hour,is_fraud\n1.5,1,0\n2.5,2,1\n3.5,3,0\n")
    printed = penstock("stream", "init", "--csv", "cards.csv")
    assert "[streams.cards]" in printed.out
    assert penstock("stream", "init", "--csv", "cards.csv", "--output", "penstock.toml").code == 0
    assert Path("penstock.toml").read_text() == printed.out
    again = penstock("stream", "init", "--csv", "cards.csv", "--name", "other", "--output", "penstock.toml")
    assert again.is_one_sentence(1), again
    assert Path("penstock.toml").read_text() == printed.out
    assert penstock("stream", "init", "--csv", "cards.csv", "--json").document == {"toml": printed.out}


def test_the_doctor_names_wrong_settings_and_ends_with_2(penstock: Penstock) -> None:
    ended = penstock("doctor", "--json", ML_KAFKA_SASL_PASSWORD=CANARY, ML_X="1")
    assert ended.code == 2
    assert {finding["status"] for finding in ended.document} == {"problem"}
    assert CANARY not in ended.out
