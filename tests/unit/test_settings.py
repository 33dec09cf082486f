"""Settings: where values come from, what is refused, and in which words."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings, load_settings, settings_reference
from schemas.errors import SettingsError
from schemas.streams import ExperimentSpec, StreamSpec

CANARY = "canary-7c1f"
SECRETS = [
    "kafka_sasl_password",
    "kafka_ssl_key_password",
    "mlflow_uri",
    "model_signing_key",
    "optuna_storage",
    "redis_url",
    "training_sql_url",
]


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees a penstock.toml that it did not write."""
    monkeypatch.chdir(tmp_path)


def written(text: str, name: str = "penstock.toml") -> Path:
    path = Path(name)
    path.write_text(text, encoding="utf-8")
    return path


def refusal(environ: dict[str, str] | None = None, toml: str = "") -> list[str]:
    """The sentences that these settings are refused with."""
    written(toml)
    with pytest.raises(SettingsError) as caught:
        load_settings(environ or {})
    assert caught.value.exit_code == 2
    return str(caught.value).splitlines()


def test_without_environment_and_file_everything_has_its_default() -> None:
    settings = load_settings({})
    assert settings == Settings()
    assert settings.embedded
    assert (settings.kafka_session_timeout_ms, settings.delivery) == (10_000, "exactly_once")
    assert settings.model_memory_bytes == 2_147_483_648


def test_the_environment_wins_over_the_file_and_the_file_over_the_default() -> None:
    written('kafka_client_id = "file"\nmetrics_port = 1\n')
    settings = load_settings({"ML_METRICS_PORT": "2"})
    assert (settings.kafka_client_id, settings.metrics_port, settings.model_threads) == ("file", 2, 1)


def test_a_named_file_wins_over_ml_config_and_that_over_the_working_directory() -> None:
    written("metrics_port = 1")
    named, by_environment = written("metrics_port = 2", "named.toml"), written("metrics_port = 3", "environment.toml")
    environ = {"ML_CONFIG": str(by_environment)}
    assert load_settings({}).metrics_port == 1
    assert load_settings(environ).metrics_port == 3
    assert load_settings(environ, named).metrics_port == 2


def test_variables_that_are_not_ours_are_let_alone() -> None:
    assert load_settings({"MLFLOW_TRACKING_URI": "x", "PATH": "y", "HTML_X": "z"}) == Settings()


def test_mlflow_is_also_found_by_the_names_that_others_use() -> None:
    theirs = {"MLFLOW_URI": "http://theirs:5000", "MLFLOW_EXPERIMENT": "theirs"}
    written('mlflow_uri = "http://file:5000"')
    assert load_settings(theirs) == Settings(mlflow_uri="http://theirs:5000", mlflow_experiment="theirs")
    ours = theirs | {"ML_MLFLOW_URI": "http://ours:5000", "ML_MLFLOW_EXPERIMENT": "ours"}
    assert load_settings(ours) == Settings(mlflow_uri="http://ours:5000", mlflow_experiment="ours")
    assert load_settings(theirs | {"ML_MLFLOW_URI": ""}).mlflow_uri == ""
    written("http://secret:5000", "secret")
    assert load_settings(theirs | {"ML_MLFLOW_URI_FILE": "secret"}).mlflow_uri == "http://secret:5000"
    assert load_settings({"MLFLOW_URI": "", "MLFLOW_EXPERIMENT": ""}).mlflow_uri == "http://file:5000"


def test_every_setting_can_be_given_in_both_places() -> None:
    for setting in dataclasses.fields(Settings):
        if setting.name in ("streams", "sinks"):
            continue
        assert f"`ML_{setting.name.upper()}`" in settings_reference()
        default = setting.default
        toml = f"{setting.name} = {str(default) if not isinstance(default, str) else repr(default)}"
        written(toml)
        load_settings({})
        load_settings({f"ML_{setting.name.upper()}": str(default)})


def test_streams_are_tables_of_the_file_in_their_order() -> None:
    written(
        '[streams.flights]\nfeatures = ["distance", "hour"]\npartitions = 8\nthreshold = 1\n'
        '[streams.fraud]\nfeatures = ["amount"]\ntask = "multiclass"\nclasses = ["good", "bad"]\n'
    )
    assert load_settings({}).streams == (
        StreamSpec(name="flights", features=("distance", "hour"), partitions=8, threshold=1.0),
        StreamSpec(name="fraud", features=("amount",), task="multiclass", classes=("good", "bad")),
    )


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("ML_METRICS_PORT", "http", "a whole number from 0 to 65535"),
        ("ML_METRICS_PORT", "70000", "a whole number from 0 to 65535"),
        ("ML_METRICS_PORT", " 80", "a whole number from 0 to 65535"),
        ("ML_METRICS_PORT", "", "a whole number from 0 to 65535"),
        ("ML_MODEL_THREADS", "0", "a whole number, at least 1"),
        ("ML_MODEL_THREADS", "1.5", "a whole number, at least 1"),
        ("ML_DEAD_LETTER_SHARE", "5%", "a number from 0 to 1"),
        ("ML_DEAD_LETTER_SHARE", "nan", "a number from 0 to 1"),
        ("ML_DELIVERY", "twice", "one of at_least_once, exactly_once"),
        ("ML_KAFKA_CLIENT_ID", "", "text that is not empty"),
        ("ML_KAFKA_BOOTSTRAP", "localhost", "`host:port`, or several with commas between"),
        ("ML_KAFKA_BOOTSTRAP", "a:1;b:2", "`host:port`, or several with commas between"),
    ],
)
def test_a_bad_variable_is_told_by_name_value_and_what_is_allowed(variable: str, value: str, expected: str) -> None:
    assert refusal({variable: value}) == [f'{variable} in the environment is "{value}", but must be {expected}']


@pytest.mark.parametrize("value", ['"9108"', "9108.0", "true", "[1]", "2024-01-01", "nan"])
def test_the_file_must_have_the_right_types(value: str) -> None:
    (sentence,) = refusal(toml=f"metrics_port = {value}")
    assert sentence.startswith("metrics_port in penstock.toml is ")
    assert sentence.endswith(", but must be a whole number from 0 to 65535")


@pytest.mark.parametrize("address", ["kafka:9092", "a:1,b:2", "a:1, b:2", "[::1]:9092", "10.0.0.1:1"])
def test_addresses_may_be_names_numbers_and_several(address: str) -> None:
    assert load_settings({"ML_KAFKA_BOOTSTRAP": address}).kafka_connection().bootstrap == address


def test_an_unknown_name_is_answered_with_the_nearest_known_one() -> None:
    assert refusal({"ML_KAFKA_BOOTSTRP": "a:1"}, 'metric_port = 1\nstream = "x"\n') == [
        "metric_port in penstock.toml is not a setting; did you mean metrics_port?",
        "stream in penstock.toml is not a setting; did you mean streams?",
        "ML_KAFKA_BOOTSTRP in the environment is not a setting; did you mean ML_KAFKA_BOOTSTRAP?",
    ]


def test_a_name_like_no_other_is_answered_without_a_guess() -> None:
    assert refusal({"ML_ZZZ": "1"}) == ["ML_ZZZ in the environment is not a setting"]


def test_a_stream_says_how_its_experiments_are_decided() -> None:
    written(
        '[streams.flights]\nfeatures = ["a"]\n[streams.flights.experiments]\n'
        'metric = "accuracy"\nguard_metrics = ["brier"]\nsteps = [0.05, 1]\nalpha = 0.01\n'
    )
    [stream] = load_settings({}).streams
    assert stream.experiments == ExperimentSpec(
        metric="accuracy", guard_metrics=("brier",), steps=(0.05, 1.0), alpha=0.01
    )
    where = "of [streams.flights.experiments] in penstock.toml"
    assert refusal(
        toml='[streams.flights]\nfeatures = ["a"]\n[streams.flights.experiments]\n'
        'guard_metrics = ["auc"]\nsteps = [10, 50]\nalpha = 1\n'
    ) == [
        f"alpha {where} is 1, but must be a number above 0 and below 1",
        f'guard_metrics {where} is ["auc"], but must be a list, each one of accuracy, brier, cost, log_loss',
        f"steps {where} is [10, 50], but must be a list, each a number above 0, at most 1",
    ]


def test_everything_wrong_with_the_streams_is_told_at_once() -> None:
    sentences = refusal(
        toml='[streams.flights]\nfeaturs = ["a"]\npartitions = "four"\n'
        '[streams.Fraud]\nfeatures = ["a", "a"]\nmin_insync_replicas = 2\n'
    )
    assert sentences == [
        'partitions of [streams.flights] in penstock.toml is "four", but must be a whole number, at least 1',
        "features of [streams.flights] in penstock.toml is missing",
        "featurs of [streams.flights] in penstock.toml is not a setting; did you mean features?",
        "stream name 'Fraud' must be 1 to 100 of a-z, 0-9, '-' and '_', and start with a letter (in penstock.toml)",
        "stream 'Fraud': feature names must be unique and not empty (in penstock.toml)",
        "stream 'Fraud': min_insync_replicas 2 is more than replication 1 (in penstock.toml)",
    ]


CONTRADICTIONS = {
    'task = "anomaly"\njoin.assume_negative = true': "only a binary stream can assume negatives",
    "retention_hours = 24": "retention_hours 24 is less than the join's window and lateness: "
    "Kafka would forget predictions that still wait for their label",
    "evaluation.window_samples = 50": "min_samples 100 is more than window_samples 50: "
    "no window would ever raise an alert",
    'learners.Online.algorithm = "x"': "learner name 'Online' must be 1 to 100 of a-z, 0-9, '-' and '_', "
    "and start with a letter",
    'learners.champion.algorithm = "x"': "learner name 'champion' is the name of the variant that serves; "
    "choose another",
    'learners.online = {algorithm = "x", batch_size = 51, max_buffer = 50}': "learner 'online': batch_size 51 is more "
    "than max_buffer 50: no batch would ever be full",
    "training.parameters = {threads = 4, seed = 1}": "training: seed, threads cannot be given or searched: "
    "the run itself sets that",
    "training.search.space = {classes = [1, 3]}": "training: classes cannot be given or searched: "
    "the run itself sets that",
}


@pytest.mark.parametrize("toml", CONTRADICTIONS)
def test_tables_of_a_stream_that_contradict_themselves_or_it_are_refused(toml: str) -> None:
    sentences = refusal(toml=f'[streams.flights]\nfeatures = ["a"]\n{toml}\n')
    assert sentences == [f"stream 'flights': {CONTRADICTIONS[toml]} (in penstock.toml)"]


@pytest.mark.parametrize(
    "toml",
    [
        "retention_hours = 25",
        "evaluation = {window_samples = 50, min_samples = 50}",
        "evaluation = {window_samples = 50, window_minutes = 1}",
        'learners.online = {algorithm = "x", batch_size = 50, max_buffer = 50}',
        'learners.online = {algorithm = "x", batch_size = 50}',
    ],
)
def test_tables_of_a_stream_may_go_to_the_edge_of_a_contradiction(toml: str) -> None:
    written(f'[streams.flights]\nfeatures = ["a"]\n{toml}\n')
    assert len(load_settings({}).streams) == 1


@pytest.mark.parametrize("value", [-1, 9 * 10**18])
@pytest.mark.parametrize(
    ("table", "setting", "least", "most"),
    [
        ("", "retention_hours", 1, 87_840),
        (".join", "window_minutes", 1, 5_270_400),
        (".join", "lateness_minutes", 0, 5_270_400),
        (".evaluation", "maturity_minutes", 0, 5_270_400),
        (".learners.online", "period_minutes", 1, 5_270_400),
    ],
)
def test_a_time_that_is_negative_or_beyond_all_reason_is_refused(
    table: str, setting: str, least: int, most: int, value: int
) -> None:
    stream = '[streams.s]\nfeatures = ["a"]\nlearners.online.algorithm = "x"\n'
    (sentence,) = refusal(toml=f"{stream}{f'{table}.{setting}'.removeprefix('.')} = {value}")
    where = f"{setting} of [streams.s{table}] in penstock.toml"
    assert sentence == f"{where} is {value}, but must be a whole number from {least} to {most}"


@pytest.mark.parametrize("toml", ["streams = 1", "[streams]\nflights = 1", "[[streams]]\nname = 'x'"])
def test_streams_that_are_no_tables_are_refused(toml: str) -> None:
    assert refusal(toml=toml) == ["streams in penstock.toml must be tables, each [streams.<name>]"]


def test_a_file_that_is_not_toml_is_refused_with_the_place() -> None:
    assert refusal(toml="a = 1\nb = \n") == [
        "the settings file penstock.toml is not valid TOML: Invalid value (at line 2, column 5)"
    ]


@pytest.mark.parametrize("path", ["absent.toml", "."])
def test_a_named_file_that_cannot_be_read_is_refused(path: str) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings({"ML_CONFIG": path})


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        (
            {"ML_KAFKA_SECURITY_PROTOCOL": "SSL"},
            "kafka_security_protocol is SSL, but kafka_bootstrap is not set",
        ),
        (
            {"ML_KAFKA_BOOTSTRAP": "a:1", "ML_KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "ML_KAFKA_SASL_USERNAME": "u"},
            "kafka_security_protocol SASL_SSL needs kafka_sasl_username and kafka_sasl_password",
        ),
        (
            {"ML_KAFKA_BOOTSTRAP": "a:1", "ML_KAFKA_SASL_PASSWORD": CANARY},
            "a SASL user name or password is set, but kafka_security_protocol does not begin with SASL_",
        ),
        (
            {"ML_KAFKA_BOOTSTRAP": "a:1", "ML_KAFKA_SSL_CA_FILE": "ca.pem"},
            "a kafka_ssl_ file is set, but kafka_security_protocol is neither SSL nor SASL_SSL",
        ),
        (
            {"ML_KAFKA_BOOTSTRAP": "a:1", "ML_KAFKA_SECURITY_PROTOCOL": "SSL", "ML_KAFKA_SSL_KEY_FILE": "key.pem"},
            "kafka_ssl_key_file is set, but kafka_ssl_cert_file is not",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(environ: dict[str, str], sentence: str) -> None:
    assert refusal(environ) == [sentence]


def test_every_kafka_setting_reaches_the_connection() -> None:
    given = {
        "bootstrap": "a:1",
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_username": "u",
        "sasl_password": "p",
        "ssl_ca_file": "ca.pem",
        "ssl_cert_file": "cert.pem",
        "ssl_key_file": "key.pem",
        "ssl_key_password": "k",
        "client_id": "c",
        "request_timeout_ms": 7,
    }
    settings = load_settings({f"ML_KAFKA_{name.upper()}": str(value) for name, value in given.items()})
    assert not settings.embedded
    assert dataclasses.asdict(settings.kafka_connection()) == given
    assert settings.kafka_connection("embedded:1").bootstrap == "embedded:1"


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_may_stand_in_a_file(secret: str) -> None:
    path = written(f"{CANARY}\n", "secret")
    login = {"ML_KAFKA_BOOTSTRAP": "a:1", "ML_KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "ML_KAFKA_SASL_USERNAME": "u"}
    password = {} if secret == "kafka_sasl_password" else {"ML_KAFKA_SASL_PASSWORD": "p"}
    environ = login | password | {f"ML_{secret.upper()}_FILE": str(path)}
    assert getattr(load_settings(environ), secret) == CANARY


def test_a_secrets_file_of_the_environment_wins_over_a_secret_in_the_file() -> None:
    written('model_signing_key = "old"')
    written("new\n", "secret")
    assert load_settings({"ML_MODEL_SIGNING_KEY_FILE": "secret"}).model_signing_key == "new"


def test_a_secret_given_twice_in_one_place_is_refused() -> None:
    written(CANARY, "secret")
    assert refusal({"ML_MODEL_SIGNING_KEY": CANARY, "ML_MODEL_SIGNING_KEY_FILE": "secret"}) == [
        "ML_MODEL_SIGNING_KEY_FILE in the environment and ML_MODEL_SIGNING_KEY are both set; only one can be"
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "cannot be read: No such file or directory"), (b"\n", "is empty"), (b"\xff", "is not UTF-8 text")],
)
def test_a_secrets_file_without_a_secret_is_refused(content: bytes | None, reason: str) -> None:
    if content is not None:
        Path("secret").write_bytes(content)
    (sentence,) = refusal(toml='model_signing_key_file = "secret"')
    assert sentence == f"model_signing_key_file in penstock.toml names a file that {reason}"


@pytest.mark.parametrize("secret", SECRETS)
def test_no_secret_is_ever_shown(secret: str) -> None:
    kept: dict[str, Any] = {secret: CANARY}
    assert CANARY not in repr(Settings(**kept))
    broken = [
        refusal({f"ML_{secret.upper()}": CANARY, "ML_METRICS_PORT": "x", "ML_KAFKA_SSL_KEY_FILE": "k"}),
        refusal({f"ML_{secret.upper()}": CANARY, "ML_KAFKA_SECURITY_PROTOCOL": "SASL_SSL"}),
        refusal({f"ML_{secret.upper()}X": CANARY}),
        refusal({f"ML_{secret.upper()}_FILE": CANARY}),
        refusal(toml=f'{secret} = ["{CANARY}"]'),
        refusal(toml=f'{secret}x = "{CANARY}"'),
        refusal(toml=f"{secret} = {CANARY}"),
        refusal(toml=f'{secret} = "{CANARY}'),
    ]
    assert all(CANARY not in sentence for sentences in broken for sentence in sentences)


def test_the_reference_shows_defaults_except_secrets() -> None:
    rows = {line.split("|")[1].strip(" `"): line for line in settings_reference().splitlines()[2:]}
    assert rows.keys() == {setting.name for setting in dataclasses.fields(Settings)} - {"streams", "sinks"}
    assert "| `9108` | a whole number from 0 to 65535 |" in rows["metrics_port"]
    assert all(f"`{secret}_file`" in rows[secret] for secret in SECRETS)
    assert all(line.split("|")[5].strip() for line in rows.values())
