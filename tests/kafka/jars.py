"""Where Apache Kafka's jars and a Java that runs them are found; Maven fetches the jars once per checkout."""

import fcntl
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

CACHE: Final = Path(__file__).parents[2] / ".cache" / "kafka"
_POM: Final = Path(__file__).with_name("pom.xml")
_FETCH_TIMEOUT_S: Final = 150
_OLDEST_JAVA: Final = 17


class KafkaUnavailable(RuntimeError):
    """Apache Kafka cannot be started here; the message says what is missing."""


def java() -> str:
    """Return the path of a Java that can run Kafka 4: that of JAVA_HOME, else the one on the PATH."""
    home = os.environ.get("JAVA_HOME")
    found = shutil.which(str(Path(home, "bin", "java"))) if home else shutil.which("java")
    if found is None:
        raise KafkaUnavailable(f"Java {_OLDEST_JAVA} is missing (or set ML_KAFKA_BOOTSTRAP to a running Kafka)")
    said = subprocess.run([found, "-version"], capture_output=True, text=True, timeout=30, check=False).stderr
    version = re.search(r'version "(\d+)', said)
    if version is None or int(version[1]) < _OLDEST_JAVA:
        raise KafkaUnavailable(f"{found} is older than Java {_OLDEST_JAVA}: {said.splitlines()[:1]}")
    return found


def class_path() -> str:
    """Return the Java class path of Kafka, fetching its jars (about 75 MB, 15 s) when the cache lacks them."""
    folder = CACHE / _version()
    if not folder.is_dir():
        _fetch(folder)
    return f"{folder}/*"


def _version() -> str:
    version = re.search(r"<kafka\.version>(.+)</kafka\.version>", _POM.read_text(encoding="utf-8"))
    assert version is not None, f"{_POM} names no kafka.version"
    return version[1]


def _fetch(folder: Path) -> None:
    """Fill `folder`, which appears only when complete: a broken fetch does no harm. One at a time fetches."""
    maven = shutil.which("mvn")
    if maven is None:
        raise KafkaUnavailable("Maven is missing, which fetches Apache Kafka (or set ML_KAFKA_BOOTSTRAP)")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with Path(folder.parent, "lock").open("w") as lock, tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            return
        jars = Path(scratch, "jars")
        command = [maven, "-q", "-B", "-f", str(_POM), "dependency:copy-dependencies", f"-DoutputDirectory={jars}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_FETCH_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            raise KafkaUnavailable(f"Maven did not fetch Apache Kafka within {_FETCH_TIMEOUT_S} s") from None
        if done.returncode:
            raise KafkaUnavailable(f"Maven could not fetch Apache Kafka:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        jars.rename(folder)
