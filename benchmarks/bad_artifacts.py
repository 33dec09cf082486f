"""Models that must not be opened, and what control says when it is asked to promote them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks import synthetic
from benchmarks.plain import Kafka
from benchmarks.workers import Penstock

_TREES: Final = 5  # few, because it is not about them


class BadArtifacts:
    """Registers models by the command line, then spoils them behind its back."""

    def __init__(self, cluster: Kafka, penstock: Penstock, seed: int) -> None:
        self._cluster = cluster
        self._penstock = penstock
        self._seed = seed

    def refusals(self) -> dict[str, str | None]:
        """Ask for the promotion of each kind; return control's reason, or None when it was not one refusal."""
        kinds: Mapping[str, Callable[[dict[str, Any]], str]] = {
            "corrupted": self._corrupt,
            "unsigned": self._unsign,
            "missing": self._remove,
        }
        reasons = {}
        for number, (kind, spoil) in enumerate(kinds.items(), start=1):
            model_id = spoil(self._register(self._seed + number))
            reasons[kind] = self._refusal(model_id)
        return reasons

    def champions(self) -> list[str]:
        """Return every champion there ever was, oldest first."""
        return [event["champion"] for event in self._events("deployments")]

    def _register(self, seed: int) -> dict[str, Any]:
        file = synthetic.save(synthetic.train(seed, _TREES), self._penstock.folder / f"model-{seed}.ubj")
        model_id = self._penstock.run("models", "register", "--stream", synthetic.STREAM, "--file", str(file))[
            "model_id"
        ]
        return next(event for event in self._events("models") if event["model_id"] == model_id)

    def _corrupt(self, version: dict[str, Any]) -> str:
        """Flip one bit in the middle of the stored file."""
        file = self._file(version)
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        return str(version["model_id"])

    def _unsign(self, version: dict[str, Any]) -> str:
        """Register the same file once more, as somebody without the key would."""
        unsigned = version | {"model_id": f"{version['model_id']}-unsigned", "signature": ""}
        self._cluster.fill(f"{synthetic.STREAM}.models", [(synthetic.STREAM.encode(), json.dumps(unsigned).encode())])
        return str(unsigned["model_id"])

    def _remove(self, version: dict[str, Any]) -> str:
        self._file(version).unlink()
        return str(version["model_id"])

    def _refusal(self, model_id: str) -> str | None:
        try:
            self._penstock.run("models", "promote", model_id, "--stream", synthetic.STREAM)
        except RuntimeError:
            pass  # the command must fail; why is in the audit log
        else:
            return None
        asked = [event for event in self._events("audit") if event["action"] == "promote"]
        answers = [event for event in asked if event["model_id"] == model_id]
        if [answer["outcome"] for answer in answers] != ["refused"]:
            return None
        return str(answers[0]["reason"]).replace(f"{self._penstock.folder}/", "")

    def _file(self, version: dict[str, Any]) -> Path:
        sha256 = str(version["sha256"])
        return self._penstock.folder / "artifacts" / sha256[:2] / sha256

    def _events(self, topic: str) -> list[dict[str, Any]]:
        return [json.loads(row.value or b"") for row in self._cluster.read(f"{synthetic.STREAM}.{topic}")]
