"""Every setting: its name, type, default and meaning, and where its value comes from.

A setting `x` is the environment variable `ML_X` or the top-level key `x` of penstock.toml; the environment wins. A
secret `x` can also stand in a file of its own, named by the setting `x_file`. Streams are tables, `[streams.<name>]`,
and so are sinks (see `sink_settings`).
Some settings have a second name in the environment, which counts when `ML_X` is not there and it is not empty.
Relative paths are relative to the working directory.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_type_hints

import msgspec

from app.secret_files import read_secrets
from app.sink_settings import read_sinks, sink_secrets
from app.sources import Source, allowed
from schemas.errors import SettingsError
from schemas.quantities import Count, Share
from schemas.sinks import Sink
from schemas.streams import Strategy, StreamSpec
from stream.connection import KafkaConnection, SaslMechanism, SecurityProtocol
from topics import MAX_MESSAGE_BYTES

Delivery = Literal["exactly_once", "at_least_once"]
LogLevel = Literal["DEBUG", "INFO", "WARNING", "ERROR"]
_ADDRESS: Final = r"(\[[0-9a-fA-F:.]+\]|[^\s:,/@\[\]]+):\d{1,5}"
Addresses = Annotated[
    str,
    msgspec.Meta(
        pattern=rf"^$|^{_ADDRESS}(,\s*{_ADDRESS})*$", description="`host:port`, or several with commas between"
    ),
]
Word = Annotated[str, msgspec.Meta(min_length=1)]
Millis = Annotated[int, msgspec.Meta(ge=1, le=86_400_000)]
CommitInterval = Annotated[
    int, msgspec.Meta(ge=1, le=5_000)
]  # a worker that commits nothing for long counts as stalled
EventSize = Annotated[int, msgspec.Meta(ge=1, le=MAX_MESSAGE_BYTES)]
Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]

CONFIG_FILE: Final = "penstock.toml"
CONFIG_VARIABLE: Final = "ML_CONFIG"
_PREFIX: Final = "ML_"
_SECOND_NAMES: Final = {"mlflow_uri": "MLFLOW_URI", "mlflow_experiment": "MLFLOW_EXPERIMENT"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings of one process, each with what it means. `load_settings` makes it; nothing changes it afterwards.

    A field that `repr` leaves out is a secret.
    """

    kafka_bootstrap: Annotated[Addresses, "Where Kafka is; empty: the embedded broker."] = ""
    kafka_security_protocol: Annotated[SecurityProtocol, "TLS (`SSL`), a login (`SASL_`), both or none."] = "PLAINTEXT"
    kafka_sasl_mechanism: Annotated[SaslMechanism, "How the login of a `SASL_` protocol is made."] = "PLAIN"
    kafka_sasl_username: Annotated[str, "The user name of the login."] = ""
    kafka_sasl_password: Annotated[str, "The password of the login."] = field(default="", repr=False)
    kafka_ssl_ca_file: Annotated[str, "PEM file of the authorities to trust; empty: the system's."] = ""
    kafka_ssl_cert_file: Annotated[str, "PEM file of this client's certificate, if the broker wants one."] = ""
    kafka_ssl_key_file: Annotated[str, "PEM file of its key; empty: the key is in the certificate's file."] = ""
    kafka_ssl_key_password: Annotated[str, "The password of an encrypted key file."] = field(default="", repr=False)
    kafka_client_id: Annotated[Word, "The name that brokers log for this client."] = "penstock"
    kafka_group_prefix: Annotated[
        Word,
        "Consumer groups are `<prefix>-score`, `-join`, `-learn`, `-evaluate`, `-archive`, `-compare`, `-judge`, "
        "`-views`, `-notify`, `-learn-<lineage>` and `-train`.",
    ] = "penstock"
    kafka_session_timeout_ms: Annotated[Millis, "A silent worker loses its partitions after this time."] = 10_000
    kafka_request_timeout_ms: Annotated[Millis, "A request without an answer fails after this time."] = 30_000
    # A client has one fetch under way per broker: a busy partition waits this long for the idle ones beside it.
    kafka_fetch_max_wait_ms: Annotated[
        Millis, "How long a broker may hold back a fetch of score or control that has nothing to give."
    ] = 20
    delivery: Annotated[Delivery, "Transactions, or none; the embedded broker always runs `at_least_once`."] = (
        "exactly_once"
    )
    commit_interval_ms: Annotated[
        CommitInterval, "The longest time between commits; scoring commits as soon as it has nothing more to score."
    ] = 100
    model_storage_dir: Annotated[Word, "Where model bytes are: a folder or an fsspec URL."] = ".penstock/artifacts"
    model_signing_key: Annotated[str, "The key that signs models; empty: a local one is made in `.penstock`."] = field(
        default="", repr=False
    )
    model_memory_bytes: Annotated[Count, "The budget for loaded models; routed ones are never dropped."] = 2 * 1024**3
    model_threads: Annotated[Count, "Threads that one prediction call uses."] = 1
    online_strategy: Annotated[Strategy, "When a learner learns, unless its own table says otherwise."] = "adaptive"
    online_batch_size: Annotated[Count, "Samples in a mini-batch, unless the learner's table says otherwise."] = 100
    online_max_buffer: Annotated[
        Count, "The most samples that wait to be learnt, unless the learner's table says otherwise."
    ] = 1000
    drift_threshold: Annotated[Share, "The p-value of drift, unless the stream's table says otherwise."] = 0.05
    drift_window_size: Annotated[Count, "Events in a drift window, unless the stream's table says otherwise."] = 1000
    drift_check_interval: Annotated[
        Count, "Seconds of event time between judgements of a sliding window, unless the stream's table says otherwise."
    ] = 300
    ab_min_samples: Annotated[
        Count, "Mature samples that each variant needs before a verdict, unless the stream's table says otherwise."
    ] = 1000
    training_dir: Annotated[Word, "Where the train role keeps hyper-parameter studies and unfinished work."] = (
        ".penstock/training"
    )
    training_threads: Annotated[Count, "Threads that a training run uses, beside the stream and after it."] = 1
    training_sql_url: Annotated[str, "The database of `training.sql` queries, as an SQLAlchemy URL."] = field(
        default="", repr=False
    )
    optuna_storage: Annotated[
        str, "The database of hyper-parameter studies, as an SQLAlchemy URL; empty: a file in `training_dir`."
    ] = field(default="", repr=False)
    mlflow_uri: Annotated[str, "Where MLflow is; empty: training runs are not tracked."] = field(default="", repr=False)
    mlflow_experiment: Annotated[Word, "The name of the experiment there."] = "penstock"
    redis_url: Annotated[str, "Where Redis is, for views; empty: the embedded one."] = field(default="", repr=False)
    checkpoint_interval_ms: Annotated[Millis, "The longest time that a learner has to repeat after a crash."] = 10_000
    max_event_bytes: Annotated[EventSize, "A larger event becomes a dead letter."] = 1024**2
    dead_letter_share: Annotated[Share, "A larger share of dead letters in the window stops the worker."] = 0.05
    dead_letter_window: Annotated[Count, "How many of the newest events that share is taken of."] = 10_000
    stall_timeout_ms: Annotated[Millis, "With lag, a broker and no progress, the worker ends after this time."] = 60_000
    metrics_host: Annotated[Word, "The address that `/metrics` and `/health` listen on."] = "127.0.0.1"
    metrics_port: Annotated[Port, "Their port; 0: any free one."] = 9108
    page_host: Annotated[Word, "The address that the live page listens on; it has no login."] = "127.0.0.1"
    page_port: Annotated[Port, "Its port; 0: any free one. A worker that finds it taken runs without a page."] = 9110
    log_level: Annotated[LogLevel, "The least severe message to log."] = "INFO"
    sink_hosts: Annotated[
        str, "The hosts that Slack and webhook sinks may post to, with commas between; empty: any that is public."
    ] = ""
    streams: tuple[StreamSpec, ...] = ()
    sinks: tuple[Sink, ...] = ()

    @property
    def embedded(self) -> bool:
        """Whether this process must start the embedded broker, because no Kafka is named."""
        return not self.kafka_bootstrap

    def kafka_connection(self, bootstrap: str = "") -> KafkaConnection:
        """Return how to reach Kafka: at `kafka_bootstrap`, or at `bootstrap` (the embedded broker's address)."""
        return KafkaConnection(
            bootstrap=bootstrap or self.kafka_bootstrap,
            security_protocol=self.kafka_security_protocol,
            sasl_mechanism=self.kafka_sasl_mechanism,
            sasl_username=self.kafka_sasl_username,
            sasl_password=self.kafka_sasl_password,
            ssl_ca_file=self.kafka_ssl_ca_file,
            ssl_cert_file=self.kafka_ssl_cert_file,
            ssl_key_file=self.kafka_ssl_key_file,
            ssl_key_password=self.kafka_ssl_key_password,
            client_id=self.kafka_client_id,
            request_timeout_ms=self.kafka_request_timeout_ms,
        )

    def problems(self) -> list[str]:
        """Return one sentence for each pair of settings that contradict each other."""
        connection = self.kafka_connection()
        found = []
        if self.embedded and self.kafka_security_protocol != "PLAINTEXT":
            found.append(f"kafka_security_protocol is {self.kafka_security_protocol}, but kafka_bootstrap is not set")
        if connection.uses_sasl and not (self.kafka_sasl_username and self.kafka_sasl_password):
            found.append(
                f"kafka_security_protocol {self.kafka_security_protocol} needs kafka_sasl_username "
                "and kafka_sasl_password"
            )
        if not connection.uses_sasl and (self.kafka_sasl_username or self.kafka_sasl_password):
            found.append("a SASL user name or password is set, but kafka_security_protocol does not begin with SASL_")
        if not connection.uses_tls and (self.kafka_ssl_ca_file or self.kafka_ssl_cert_file or self.kafka_ssl_key_file):
            found.append("a kafka_ssl_ file is set, but kafka_security_protocol is neither SSL nor SASL_SSL")
        if self.kafka_ssl_key_file and not self.kafka_ssl_cert_file:
            found.append("kafka_ssl_key_file is set, but kafka_ssl_cert_file is not")
        return found

    @property
    def allowed_sink_hosts(self) -> frozenset[str]:
        """The hosts of `sink_hosts`; where there are none, all are allowed."""
        return frozenset(host.strip().lower().removesuffix(".") for host in self.sink_hosts.split(",") if host.strip())

    def sink_problems(self) -> list[str]:
        """Return one sentence for each thing that keeps a sink from delivering; no secret is in any."""
        return [problem for sink in self.sinks for problem in sink.problems(self.allowed_sink_hosts)]


_SECRETS: Final = tuple(f.name for f in fields(Settings) if not f.repr)
_TYPES: Final[Mapping[str, Any]] = get_type_hints(Settings, include_extras=True) | {f"{s}_file": str for s in _SECRETS}
_SCALARS: Final = {name: kind for name, kind in _TYPES.items() if name not in ("streams", "sinks")}


def load_settings(environ: Mapping[str, str], config_path: Path | None = None) -> Settings:
    """Return the settings from `environ` and a file: `config_path`, else what `ML_CONFIG` names, else ./penstock.toml.

    The last may be absent. Raises SettingsError with one line per problem; no secret's value is in it.
    """
    document = _document(environ, config_path)
    values: dict[str, Any] = {}
    problems: list[str] = []
    environment = _environment(environ)
    for source, known in ((document, _TYPES), (environment, _SCALARS | sink_secrets(document))):
        problems += source.unknown(known)
        typed, malformed = source.typed(_SCALARS, _SECRETS)
        problems += malformed + read_secrets(typed, source, _SECRETS)
        values |= typed
    streams, malformed = _streams(document)
    sinks, malformed_sinks = read_sinks(document, environment, [stream.name for stream in streams])
    problems += malformed + malformed_sinks
    if not problems:
        settings = Settings(streams=streams, sinks=sinks, **values)
        problems = settings.problems()
    if problems:
        raise SettingsError("\n".join(problems))
    return settings


def settings_reference() -> str:
    """Return every setting as one Markdown table, for the documentation."""
    rows = ["| setting | environment | default | allowed | meaning |", "|---|---|---|---|---|"]
    for setting in (f for f in fields(Settings) if f.name in _SCALARS):
        kind = _SCALARS[setting.name]
        default = f"`{setting.default}`" if setting.default != "" else ""
        values = allowed(kind) if setting.repr else f"text; or name its file in `{setting.name}_file`"
        names = f"`{_PREFIX}{setting.name.upper()}`"
        if setting.name in _SECOND_NAMES:
            names += f" or `{_SECOND_NAMES[setting.name]}`"
        rows.append(f"| `{setting.name}` | {names} | {default} | {values} | {kind.__metadata__[-1]} |")
    return "\n".join(rows) + "\n"


def _environment(environ: Mapping[str, str]) -> Source:
    table = {
        key.removeprefix(_PREFIX).lower(): value
        for key, value in environ.items()
        if key.startswith(_PREFIX) and key != CONFIG_VARIABLE
    }
    for name, second in _SECOND_NAMES.items():
        if environ.get(second) and not {name, f"{name}_file"} & table.keys():
            table[name] = environ[second]
    return Source(origin="in the environment", table=table, prefix=_PREFIX, text=True)


def _document(environ: Mapping[str, str], config_path: Path | None) -> Source:
    named = config_path or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    path = named or Path(CONFIG_FILE)
    if named is None and not path.exists():
        return Source(origin=f"in {path}", table={})
    try:
        return Source(origin=f"in {path}", table=tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise SettingsError(f"the settings file {path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # not UTF-8, or not TOML; both say where
        raise SettingsError(f"the settings file {path} is not valid TOML: {error}") from error


def _streams(document: Source) -> tuple[tuple[StreamSpec, ...], list[str]]:
    tables = document.table.get("streams", {})
    if not (isinstance(tables, dict) and all(isinstance(table, dict) for table in tables.values())):
        return (), [f"streams {document.where} must be tables, each [streams.<name>]"]
    streams, problems = [], []
    for name, table in tables.items():
        stream, malformed = document.within("streams", {}).within(name, table).struct(StreamSpec, name=name)
        if stream is not None:
            streams.append(stream)
            malformed = [f"{problem} ({document.where})" for problem in stream.problems()]
        problems += malformed
    return tuple(streams), problems
