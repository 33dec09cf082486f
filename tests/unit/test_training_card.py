"""The card of a model: what people read before they promote it."""

import builtins
import json
import re
import sys
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from agents.train.card import card_of
from agents.train.card_text import caveats_of, text_of
from agents.train.facts import Card, Rival
from ml.training.gates import Champion, GateRules
from ml.training.importance import Importance
from tests.carding import HOUR_MS, binary_card, card_of_classes

PLOTS = {"roc.svg", "precision-recall.svg", "calibration.svg", "thresholds.svg", "importance.svg"}


@pytest.fixture(scope="module")
def card() -> Card:
    return binary_card()


@pytest.fixture(scope="module")
def files(card: Card) -> dict[str, bytes]:
    return card_of(card)


def rival_of(card: Card) -> Rival:
    assert card.rival is not None
    return card.rival


def tables_of(text: str) -> dict[str, list[list[str]]]:
    """Return the cells of the first table under each heading."""
    found = {}
    for section in text.split("\n## ")[1:]:
        heading, _, body = section.partition("\n")
        lines = body.strip().split("\n\n")[0].split("\n")
        if lines[0].startswith("|"):
            found[heading] = [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]
    return found


def test_it_has_a_text_a_report_and_pictures_and_is_the_same_again(card: Card, files: dict[str, bytes]) -> None:
    assert files.keys() == {"card.md", "report.json"} | PLOTS
    assert card_of(card) == files
    for name in PLOTS:
        assert ElementTree.fromstring(files[name]).tag == "{http://www.w3.org/2000/svg}svg"
        assert f"]({name})" in files["card.md"].decode()


def test_the_figures_stand_beside_the_champions(card: Card, files: dict[str, bytes]) -> None:
    text = files["card.md"].decode()
    table = tables_of(text)["What it is worth"]
    rival, difference = rival_of(card), rival_of(card).found.difference
    assert rival.test is not None
    assert difference is not None
    assert table[0] == ["", "Test", "Champion, test", "Validation"]
    figures = {row[0]: row[1:] for row in table[2:]}
    assert len(figures) == 12
    assert figures["ROC AUC"] == [f"{each.roc_auc:.4f}" for each in (card.test, rival.test, card.validation)]
    assert figures["Brier score"] == [f"{each.brier:.4f}" for each in (card.test, rival.test, card.validation)]
    assert f"the 95% interval {difference.low:+.4f} to {difference.high:+.4f}" in text
    assert "`flights-old`" in text


def test_the_report_has_all_that_the_text_is_made_of(card: Card, files: dict[str, bytes]) -> None:
    report = json.loads(files["report.json"])
    assert report["version"]["model_id"] == "flights-new"
    assert report["test"]["roc_auc"] == card.test.roc_auc
    assert len(report["validation"]["curve"]) == len(card.validation.curve)
    assert report["rival"]["found"]["difference"]["low"] == rival_of(card).found.difference.low
    assert [gate["gate"] for gate in report["gates"]] == ["min_auc", "champion"]
    assert [each["feature"] for each in report["importance"]] == list(card.version.features)


def test_it_says_what_passed_and_how_the_model_is_promoted(files: dict[str, bytes]) -> None:
    text = files["card.md"].decode()
    assert "ann asked for it (drift, manual: a hurricane \\| came). It passed every gate." in text
    assert "penstock models promote flights-new --stream flights" in text
    refused = binary_card(GateRules(metric="roc_auc", min_gain=0.5, alpha=0.05, min_auc=0.7, min_recall=0.999))
    assert not refused.passed
    told = text_of(refused, [])
    assert "It did **not** pass: min_recall, champion." in told
    assert [row[:2] for row in tables_of(told)["Gates"][2:]] == [
        ["min_auc", "passed"],
        ["min_recall", "**failed**"],
        ["champion", "**failed**"],
    ]


def test_it_says_what_the_data_was_and_how_often_each_class_comes(files: dict[str, bytes]) -> None:
    rows = tables_of(files["card.md"].decode())["What it was made from"]
    assert rows[0] == ["Part", "Events", "Entities", "From (event time)", "To", "Class 1"]
    assert [row[:3] for row in rows[2:]] == [
        ["train", "3,000", "300"],
        ["validation", "800", rows[3][2]],
        ["test", "1,500", rows[4][2]],
    ]
    assert rows[2][3] == "2023-07-22 04:26 UTC"
    assert all(row[5].endswith("%") for row in rows[2:])


def test_the_confusion_matrix_and_both_thresholds_are_there(card: Card, files: dict[str, bytes]) -> None:
    text = files["card.md"].decode()
    matrix = tables_of(text)["Decisions on the test data"]
    assert [[cell.replace(",", "") for cell in row[1:]] for row in matrix[2:]] == [
        [f"{cell:.0f}" for cell in row] for row in card.test.confusion
    ]
    assert sum(sum(row) for row in card.test.confusion) == 1500
    assert card.test_at_best is not None
    assert card.test_at_best.threshold == card.validation.best.threshold
    assert f"| {card.test_at_best.threshold:.4g}, best F1 on the validation data | " in text
    assert "| 0.5, the stream's | " in text


def test_features_come_by_their_importance_and_their_names_cannot_break_the_table(files: dict[str, bytes]) -> None:
    rows = tables_of(files["card.md"].decode())["Features"]
    assert [row[0] for row in rows[2:]] == ["weight \\| kg", "price in $x$", "age", "none"]


def test_a_query_is_shown_as_it_is_and_several_classes_have_no_thresholds() -> None:
    files = card_of(card_of_classes())
    text = files["card.md"].decode()
    assert "\n    SELECT *\n    FROM flights\n" in text
    assert "Threshold" not in text
    assert files.keys() == {"card.md", "report.json", "calibration.svg"}
    assert [row[0] for row in tables_of(text)["Decisions on the test data"][2:]] == ["calm", "rain\\|y", "snow"]


def test_without_matplotlib_there_is_a_card_and_it_says_what_is_missing(
    card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    files = card_of(card)
    assert files.keys() == {"card.md", "report.json"}
    assert "pip install 'penstock[train]'" in files["card.md"].decode()


def test_names_in_any_script_can_be_drawn(card: Card) -> None:
    named = replace(card, importance=(Importance("重量 $\\frac{$", 0.1, 0.01), Importance("x" * 200, 0.2, 0.01)))
    assert ElementTree.fromstring(card_of(named)["importance.svg"]) is not None


@pytest.mark.parametrize(
    ("learnt_until", "said"),
    [
        (None, "is not recorded: it may know some of the test data"),
        (10, "so it knows some of the test data: the comparison favours the champion"),
        (0, ""),
    ],
)
def test_a_champion_that_may_know_the_test_data_is_a_caveat(card: Card, learnt_until: int | None, said: str) -> None:
    rival = rival_of(card)
    until = None if learnt_until is None else card.parts[-1].from_time_ms + learnt_until * HOUR_MS
    version = msgspec.structs.replace(rival.version, training_to_time_ms=until)
    known = replace(card, rival=replace(rival, version=version))
    caveats = " ".join(caveats_of(known))
    assert ("champion learnt from" in caveats) == bool(said)
    assert said in caveats


def test_a_learner_that_counts_with_what_was_served_is_a_caveat(card: Card) -> None:
    rival = rival_of(card)
    version = msgspec.structs.replace(rival.version, training_to_time_ms=None)
    served = replace(card, rival=replace(rival, version=version, found=replace(rival.found, as_served=True)))
    caveats = " ".join(caveats_of(served))
    assert "counts with what was served at the time" in caveats
    assert "champion learnt from" not in caveats


def test_how_the_test_data_was_used_is_said(card: Card) -> None:
    assert any(caveat.startswith("The test data chose nothing") for caveat in caveats_of(card))


def test_what_weakens_the_figures_is_said(card: Card) -> None:
    plain = " ".join(caveats_of(card))
    assert "the events of an entity count as one" in plain
    assert "The fit ended after 120 rounds" in plain
    assert "makes up" not in plain
    assert "few entities" not in plain
    difference = rival_of(card).found.difference
    assert difference is not None
    few = Champion(difference=replace(difference, entities=12.0))
    train = replace(card.parts[0], shares={"0": 0.9, "1": 0.1})
    weak = replace(card, parts=(train, *card.parts[1:]), rival=replace(rival_of(card), found=few))
    told = " ".join(caveats_of(weak))
    assert "worth 12 alike" in told
    assert re.search(r"Class 1 makes up 28\.\d% of the test data, and 10\.0% of the training data", told)
    alone = replace(card, rival=replace(rival_of(card), found=Champion(incomparable="it takes other features")))
    assert "not compared with the champion: it takes other features" in " ".join(caveats_of(alone))
