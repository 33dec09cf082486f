"""The artifact store, its signatures and its key."""

import hashlib
import hmac
import re
import resource
import signal
import stat
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import RetryableError, SettingsError
from schemas.events import ModelVersion
from stores.artifacts import (
    ArtifactCorrupted,
    ArtifactMissing,
    ArtifactStore,
    ArtifactUnavailable,
    ArtifactUntrusted,
    Signer,
    load_or_create_key,
)

PAYLOAD = b"a model" * 1000
SHA256 = hashlib.sha256(PAYLOAD).hexdigest()


@pytest.fixture(params=["folder", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ArtifactStore]:
    yield ArtifactStore(str(tmp_path / "artifacts") if request.param == "folder" else "memory://artifacts")
    MemoryFileSystem.store.clear()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "artifacts"


@pytest.fixture
def folder(root: Path) -> ArtifactStore:
    return ArtifactStore(str(root))


def _files(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


@pytest.mark.parametrize("payload", [b"", b"\0", PAYLOAD], ids=["empty", "one byte", "7 kB"])
def test_what_is_put_is_got(store: ArtifactStore, payload: bytes) -> None:
    sha256 = store.put(payload)
    assert sha256 == hashlib.sha256(payload).hexdigest()
    assert store.get(sha256, len(payload)) == payload


def test_an_artifact_lies_under_its_hash(folder: ArtifactStore, root: Path) -> None:
    folder.put(PAYLOAD)
    assert _files(root) == [f"{SHA256[:2]}/{SHA256}"]


def test_putting_again_writes_nothing(folder: ArtifactStore, root: Path) -> None:
    folder.put(PAYLOAD)
    before = (root / SHA256[:2] / SHA256).stat()
    folder.put(PAYLOAD)
    after = (root / SHA256[:2] / SHA256).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_putting_again_mends_a_damaged_file(folder: ArtifactStore, root: Path) -> None:
    folder.put(PAYLOAD)
    (root / SHA256[:2] / SHA256).write_bytes(PAYLOAD[:10])
    folder.put(PAYLOAD)
    assert folder.get(SHA256, len(PAYLOAD)) == PAYLOAD


def test_many_may_put_the_same_at_once(folder: ArtifactStore, root: Path) -> None:
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(folder.put, [PAYLOAD] * 40)) == {SHA256}
    assert _files(root) == [f"{SHA256[:2]}/{SHA256}"]
    assert folder.get(SHA256, len(PAYLOAD)) == PAYLOAD


def test_a_full_disk_is_one_sentence_and_leaves_nothing_behind(folder: ArtifactStore, root: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(ArtifactUnavailable, match=r"the model store failed at .*File too large"):
            folder.put(PAYLOAD)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert _files(root) == []


def test_a_crash_in_the_middle_of_a_write_shows_no_artifact(folder: ArtifactStore, root: Path) -> None:
    crash = (
        "import resource, signal; from stores.artifacts import ArtifactStore; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_DFL); resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)); "
        f"ArtifactStore({str(root)!r}).put(b'a model' * 1000)"
    )
    died = subprocess.run([sys.executable, "-c", crash], cwd=Path(__file__).parents[2], check=False)
    assert died.returncode == -signal.SIGXFSZ
    [part] = _files(root)
    assert re.fullmatch(rf"{SHA256[:2]}/\.{SHA256}\.\w+\.part", part)  # hidden
    with pytest.raises(ArtifactMissing):
        folder.get(SHA256, len(PAYLOAD))
    folder.put(PAYLOAD)
    assert folder.get(SHA256, len(PAYLOAD)) == PAYLOAD


def test_a_missing_artifact_is_named_with_what_to_do(store: ArtifactStore) -> None:
    with pytest.raises(ArtifactMissing, match=f"{SHA256[:2]}/{SHA256} does not exist; check model_storage_dir"):
        store.get(SHA256, len(PAYLOAD))


@pytest.mark.parametrize(
    "stored",
    [PAYLOAD[:-1], PAYLOAD + b"!", PAYLOAD[:-1] + b"!", b""],
    ids=["cut off", "longer", "one byte changed", "emptied"],
)
def test_a_changed_artifact_is_refused_and_named(folder: ArtifactStore, root: Path, stored: bytes) -> None:
    folder.put(PAYLOAD)
    path = root / SHA256[:2] / SHA256
    path.write_bytes(stored)
    with pytest.raises(ArtifactCorrupted, match=f"the model file {path} was changed since it was stored"):
        folder.get(SHA256, len(PAYLOAD))


@pytest.mark.parametrize("size", [0, 1, len(PAYLOAD) - 1, len(PAYLOAD) + 1, -1, -2])
def test_another_size_than_the_artifact_has_is_refused(store: ArtifactStore, size: int) -> None:
    store.put(PAYLOAD)
    with pytest.raises(ArtifactCorrupted):
        store.get(SHA256, size)


@pytest.mark.parametrize("size", [len(PAYLOAD), -2])
def test_no_more_is_read_than_was_announced(folder: ArtifactStore, root: Path, size: int) -> None:
    path = root / SHA256[:2] / SHA256
    path.parent.mkdir(parents=True)
    with path.open("wb") as huge:
        huge.truncate(64 * 1024**2)
    tracemalloc.start()
    try:
        with pytest.raises(ArtifactCorrupted):
            folder.get(SHA256, size)
        assert tracemalloc.get_traced_memory()[1] < 1024**2
    finally:
        tracemalloc.stop()


def test_a_store_that_cannot_work_is_worth_another_try(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    store = ArtifactStore(str(tmp_path / "file"))
    for attempt in (lambda: store.put(PAYLOAD), lambda: store.get(SHA256, 1)):
        with pytest.raises(ArtifactUnavailable, match="check that it can be reached") as refusal:
            attempt()
        assert isinstance(refusal.value, RetryableError)


def test_a_storage_that_nothing_installed_can_open_is_a_wrong_setting() -> None:
    with pytest.raises(SettingsError, match="model_storage_dir 'nothing://bucket' cannot be used"):
        ArtifactStore("nothing://bucket")


VERSION = ModelVersion(
    model_id="flights-1",
    stream="flights",
    algorithm="xgboost",
    task="binary",
    created_time_ms=1,
    sha256=SHA256,
    signature="",
    size_bytes=len(PAYLOAD),
    memory_bytes=2 * len(PAYLOAD),
    features=("a", "b"),
)


def _signed(version: ModelVersion, signer: Signer) -> ModelVersion:
    return msgspec.structs.replace(version, signature=signer.sign(version))


def test_a_signed_version_is_trusted() -> None:
    Signer(b"key").verify(_signed(VERSION, Signer(b"key")))


def test_the_signature_is_a_plain_hmac_that_any_release_and_tool_can_repeat() -> None:
    use = '"penstock-artifact-1", "flights", "xgboost", "binary", ["a", "b"], []'
    signed = f'[{use}, "{SHA256}", 7000, 14000, "flights-1"]'
    assert Signer(b"key").sign(VERSION) == hmac.digest(b"key", signed.encode(), "sha256").hex()


def test_an_unsigned_version_is_refused() -> None:
    with pytest.raises(ArtifactUntrusted, match="'flights-1' is not signed; register it with"):
        Signer(b"key").verify(VERSION)


@pytest.mark.parametrize("signature", ["0" * 64, "é", "\ud800", " "])
def test_a_wrong_signature_is_refused(signature: str) -> None:
    with pytest.raises(ArtifactUntrusted, match="signature of model 'flights-1' is wrong"):
        Signer(b"key").verify(msgspec.structs.replace(VERSION, signature=signature))


def test_the_signature_of_another_key_is_refused() -> None:
    with pytest.raises(ArtifactUntrusted, match="another model_signing_key"):
        Signer(b"key").verify(_signed(VERSION, Signer(b"another key")))


@pytest.mark.parametrize(
    "change",
    [
        {"stream": "fraud"},
        {"algorithm": "river-logistic"},
        {"task": "anomaly"},
        {"features": ("b", "a")},
        {"features": ("a,b",)},
        {"features": ('a", "b',)},
        {"features": ("a",), "classes": ("b",)},
        {"features": (), "classes": ("a", "b")},
        {"sha256": "0" * 64},
        {"size_bytes": 1},
        {"memory_bytes": 1},
        {"model_id": "flights-2"},
    ],
    ids=str,
)
def test_a_signature_does_not_pass_for_anything_else(change: dict[str, Any]) -> None:
    signed = _signed(VERSION, Signer(b"key"))
    with pytest.raises(ArtifactUntrusted):
        Signer(b"key").verify(msgspec.structs.replace(signed, **change))


@given(*[st.tuples(st.text(), st.text(), st.lists(st.text()), st.lists(st.text()))] * 2)
def test_two_versions_share_a_signature_only_if_they_are_the_same(one: Any, other: Any) -> None:
    first, second = (
        msgspec.structs.replace(
            VERSION, stream=stream, algorithm=algorithm, features=tuple(features), classes=tuple(classes)
        )
        for stream, algorithm, features, classes in (one, other)
    )
    assert (Signer(b"key").sign(first) == Signer(b"key").sign(second)) == (first == second)


def test_an_empty_key_signs_nothing() -> None:
    with pytest.raises(SettingsError, match="model_signing_key is empty"):
        Signer(b"")


@pytest.fixture
def key_path(tmp_path: Path) -> Path:
    return tmp_path / "not yet there" / "signing.key"


def test_a_key_is_made_once_and_only_its_owner_may_read_it(key_path: Path) -> None:
    key = load_or_create_key(key_path)
    assert len(bytes.fromhex(key.decode())) == 32
    assert stat.S_IMODE(key_path.stat().st_mode) == 0o600
    assert load_or_create_key(key_path) == key
    assert list(key_path.parent.iterdir()) == [key_path]


def test_each_place_gets_a_key_of_its_own(tmp_path: Path) -> None:
    assert load_or_create_key(tmp_path / "one") != load_or_create_key(tmp_path / "other")


def test_all_who_start_at_once_get_the_same_key(tmp_path: Path) -> None:
    for attempt in range(20):
        with ThreadPoolExecutor(8) as threads:
            assert len(set(threads.map(load_or_create_key, [tmp_path / str(attempt)] * 8))) == 1
    assert len(list(tmp_path.iterdir())) == 20


def test_white_space_around_a_key_is_not_part_of_it(key_path: Path) -> None:
    load_or_create_key(key_path)
    key_path.write_text("\n my own key \r\n")
    assert load_or_create_key(key_path) == b"my own key"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644])
def test_a_key_that_others_may_read_or_write_is_refused(key_path: Path, mode: int) -> None:
    load_or_create_key(key_path)
    key_path.chmod(mode)
    with pytest.raises(SettingsError, match=f"open to other users; run: chmod 600 {key_path}") as refusal:
        load_or_create_key(key_path)
    assert refusal.value.exit_code == 2


def test_an_empty_key_file_is_refused(key_path: Path) -> None:
    load_or_create_key(key_path)
    key_path.write_bytes(b"\n")
    with pytest.raises(SettingsError, match="is empty; delete the file to get a new key"):
        load_or_create_key(key_path)


def test_a_key_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="cannot be read or made"):
        load_or_create_key(tmp_path / "file" / "signing.key")
