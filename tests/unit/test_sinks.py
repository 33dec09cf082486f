"""Sinks as they are declared, what they may post to, and what is written in their messages. No secret is shown."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.local_checks import check_sinks
from app.settings import Settings, load_settings
from app.sinks import find_sink, sender_of
from schemas.errors import SettingsError
from schemas.sinks import EmailSpec, Sink, SlackSpec, WebhookSpec
from stores.sinks import MailSender, SlackSender, WebhookSender
from stores.sinks.addresses import is_public
from stores.sinks.headers import header_text
from stores.sinks.mail import mail_of
from stores.sinks.posting import retry_after_s
from stores.sinks.slack import slack_message
from tests.notifying import alert_of

CANARY = "canary-55d0-do-not-show"
SLACK = f"https://hooks.example.com/services/{CANARY}"
STREAM = '[streams.flights]\nfeatures = ["a"]\n'
EMAIL = 'kind = "email"\nhost = "mail"\nsender = "p@example.com"\nrecipients = ["ops@example.com"]\n'


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def loaded(toml: str, **environ: str) -> Settings:
    Path("penstock.toml").write_text(STREAM + toml)
    return load_settings(environ)


def refusal(toml: str, **environ: str) -> str:
    with pytest.raises(SettingsError) as caught:
        loaded(toml, **environ)
    return str(caught.value)


def test_each_kind_is_read_with_its_secret_from_the_environment_or_a_file() -> None:
    Path("key").write_text(f"{CANARY}\n")
    toml = f"""
    [sinks.ops]
    kind = "slack"
    min_severity = "high"
    [sinks.hook]
    kind = "webhook"
    url = "https://alerts.example.com/penstock"
    streams = ["flights"]
    secret_file = "key"
    [sinks.mail]
    {EMAIL}
    username = "penstock"
    """
    settings = loaded(toml, ML_SINK_OPS_SECRET=SLACK, ML_SINK_MAIL_SECRET_FILE="key")
    assert [sink.spec for sink in settings.sinks] == [
        SlackSpec(name="ops", min_severity="high"),
        WebhookSpec(name="hook", url="https://alerts.example.com/penstock", streams=("flights",)),
        EmailSpec(
            name="mail", host="mail", sender="p@example.com", recipients=("ops@example.com",), username="penstock"
        ),
    ]
    assert [sink.secret for sink in settings.sinks] == [SLACK, CANARY, CANARY]
    assert settings.sink_problems() == []
    kinds = [type(sender_of(sink)) for sink in settings.sinks]
    assert kinds == [SlackSender, WebhookSender, MailSender]
    assert [finding.status for finding in check_sinks(settings)] == ["ok"] * 3
    assert CANARY not in f"{settings!r} {settings.sinks} {check_sinks(settings)}"


def test_the_environment_wins_over_the_file_of_the_table() -> None:
    toml = '[sinks.ops]\nkind = "slack"\nsecret_file = "not there"\n'
    assert loaded(toml, ML_SINK_OPS_SECRET=SLACK).sink_problems() == []


@pytest.mark.parametrize(
    ("toml", "words"),
    [
        ("[sinks.ops]\n", "kind of [sinks.ops] in penstock.toml is missing: it must be one of slack, email, webhook"),
        ('[sinks.ops]\nkind = "pager"\n', "kind of [sinks.ops] in penstock.toml is unknown"),
        ('[sinks]\nops = "slack"\n', "must be tables, each [sinks.<name>]"),
        (f'[sinks.ops]\nkind = "slack"\nsecret = "{SLACK}"\n', "must not stand there: set ML_SINK_OPS_SECRET"),
        (f'[sinks.ops]\nkind = "slack"\nsecret_url = "{SLACK}"\n', "secret_url of [sinks.ops]"),
        ('[sinks.Ops]\nkind = "slack"\n', "must be 1 to 40 of a-z"),
        ('[sinks.ops]\nkind = "slack"\nmin_severity = "bad"\n', "must be one of critical, high, low, medium"),
        ('[sinks.ops]\nkind = "slack"\nstreams = ["birds"]\n', "names no declared stream: birds"),
        ('[sinks.ops]\nkind = "webhook"\nurl = "http://x.example.com"\n', "must begin with https://"),
        ('[sinks.ops]\nkind = "webhook"\nurl = "https://u:p@x.example.com"\n', "must not have a user name"),
        ('[sinks.ops]\nkind = "webhook"\nurl = "alerts"\n', "is not a URL"),
        (f'[sinks.mail]\n{EMAIL}security = "none"\nusername = "p"\n', "in the clear"),
        ('[sinks.mail]\nkind = "email"\nhost = "m"\nsender = "p"\nrecipients = []\n', "'p' is not an e-mail address"),
        ("[sinks.mail]\n" + EMAIL.replace('host = "mail"', 'host = "a..b"'), "'a..b' is not the name of a host"),
        ('[sinks.ops]\nkind = "webhook"\nurl = "https://a..b/x"\n', "is not a URL"),
        ('[sinks.ops]\nkind = "slack"\nper_minute = 100000000\n', "per_minute"),
        (f"[sinks.mail]\n{EMAIL}port = 0\n", "a whole number from 1 to 65535"),
    ],
)
def test_what_is_wrong_with_a_declaration_is_refused_in_words(toml: str, words: str) -> None:
    said = refusal(toml)
    assert words in said
    assert CANARY not in said


def test_a_secret_of_no_declared_sink_is_an_unknown_setting() -> None:
    said = refusal('[sinks.ops]\nkind = "slack"\n', ML_SINK_OPPS_SECRET=SLACK)
    assert said == "ML_SINK_OPPS_SECRET in the environment is not a setting; did you mean ML_SINK_OPS_SECRET?"


@pytest.mark.parametrize(
    ("toml", "environ", "words"),
    [
        ('kind = "slack"', {}, "needs the URL of Slack's incoming webhook: set ML_SINK_OPS_SECRET"),
        ('kind = "slack"', {"ML_SINK_OPS_SECRET": f"http://x/{CANARY}"}, "its secret must begin with https://"),
        ('kind = "slack"', {"ML_SINK_OPS_SECRET": CANARY}, "its secret is not a URL"),
        ('kind = "slack"\nsecret_file = "nowhere"', {}, "names a file that cannot be read"),
        ('kind = "webhook"\nurl = "https://x.example.com"', {}, "needs the key that signs"),
        (EMAIL + 'username = "p"', {}, "needs the password"),
        (EMAIL, {"ML_SINK_OPS_SECRET": CANARY}, "has a password, but no username"),
        (EMAIL + 'username = "p"', {"ML_SINK_OPS_SECRET": f"{CANARY}-é"}, "not plain ASCII"),
        ('kind = "slack"', {"ML_SINK_OPS_SECRET": f"https://hooks.example.com\x01/{CANARY}"}, "is not a URL"),
        (
            'kind = "slack"',
            {"ML_SINK_OPS_SECRET": SLACK, "ML_SINK_HOSTS": "hooks.slack.com"},
            "posts to a host that is not among sink_hosts",
        ),
    ],
)
def test_who_cannot_deliver_is_told_at_a_worker_s_start_and_by_the_doctor_but_not_by_other_commands(
    toml: str, environ: dict[str, str], words: str
) -> None:
    settings = loaded(f"[sinks.ops]\n{toml}\n", **environ)
    [said] = settings.sink_problems()
    assert words in said
    [finding] = check_sinks(settings)
    assert (finding.status, finding.sentence) == ("problem", said)
    assert CANARY not in f"{settings!r} {said}"


def test_the_hosts_that_may_be_posted_to_are_compared_as_names_are() -> None:
    toml = '[sinks.ops]\nkind = "slack"\n[sinks.mail]\n' + EMAIL
    dotted = SLACK.replace("example.com", "example.com.")
    for secret in (SLACK, dotted):
        settings = loaded(toml, ML_SINK_OPS_SECRET=secret, ML_SINK_HOSTS="a.example.com, Hooks.Example.com.")
        assert settings.sink_problems() == []


def test_a_sink_that_is_not_declared_is_refused_with_those_that_are() -> None:
    sinks = (Sink(SlackSpec(name="ops")), Sink(SlackSpec(name="night")))
    with pytest.raises(SettingsError, match="these are declared: night, ops"):
        find_sink(sinks, "opps")


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", True),
        ("64:ff9b::5db8:d70e", True),
        *[
            (address, False)
            for address in (
                "127.0.0.1",
                "10.1.2.3",
                "172.16.0.1",
                "192.168.0.1",
                "100.64.0.1",
                "169.254.169.254",
                "0.0.0.0",
                "224.0.0.1",
                "255.255.255.255",
                "::",
                "::1",
                "fe80::1%eth0",
                "fc00::1",
                "ff02::1",
                "::ffff:127.0.0.1",
                "64:ff9b::7f00:1",
                "2002:7f00:1::",
                "2002:5db8:d70e::",
                "2001:0:5db8:d70e::",
                "64:ff9b:1::7f00:1",
                "::127.0.0.1",
                "::ffff:0:127.0.0.1",
                "fec0::1",
                "fe80::5efe:7f00:1",
                "2a00::5efe:127.0.0.1",
                "2a00::200:5efe:127.0.0.1",
                "5f00::1",
                "3fff::1",
                "2001:db8::1",
                "192.88.99.1",
            )
        ],
    ],
)
def test_an_address_is_public_if_everything_that_it_leads_to_is(address: str, public: bool) -> None:
    assert is_public(address) is public


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("17", 17.0),
        ("Sun, 22 Nov 2026 10:01:00 GMT", 60.0),
        ("Sun, 22 Nov 2026 09:00:00 GMT", 0.0),
        ("", None),
        ("soon", None),
        ("-5", None),
        ("Fri, 31 Dec 9999 23:59:59 -2300", 251_607_041_999.0),
        ("Sun, 22 Nov 2026 10:01:00 -0000", 60.0),
    ],
)
def test_a_receiver_may_ask_for_seconds_or_give_a_date(text: str, seconds: float | None) -> None:
    assert retry_after_s(text, datetime(2026, 11, 22, 10, tzinfo=UTC)) == seconds


def test_ids_stay_apart_in_headers_whatever_is_in_them() -> None:
    ids = ["a1", "flights/drift:7", "a\r\nX: 1", "a%d;%a;X: 1", "é", "a b", "a%20b"]
    written = [header_text(id_) for id_ in ids]
    assert written[:2] == ids[:2]
    assert len(set(written)) == len(ids)
    assert all(text.isascii() and text.isprintable() and " " not in text for text in written)


def test_a_long_alert_fits_into_a_message_of_slack_and_into_a_subject() -> None:
    alert = alert_of(1, subject="s" * 5_000, message="&" * 5_000)
    message = slack_message(alert)
    [block] = message["blocks"]  # type: ignore[misc]
    text = block["text"]["text"]
    assert (len(text) <= 3_000, text.endswith("&amp;…\n_What to do:_ Look.")) == (True, True)
    assert (message["unfurl_links"], message["unfurl_media"], block["text"]["verbatim"]) == (False, False, True)
    spec = EmailSpec(name="mail", host="m", sender="p@example.com", recipients=("ops@example.com",))
    mail = mail_of(spec, alert)
    assert len(mail["Subject"]) <= 200
    assert "&" * 5_000 in mail.get_content().replace("\n", "")
