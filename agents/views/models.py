"""What is shown of models: each whose file was not pruned, as the registry has it, and what it is routed as."""

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from agents.registry import merged
from agents.views.reading import Pieces, decoded
from agents.views.routing import Routing
from schemas.events import ModelVersion
from stores.view_keys import model_key
from stores.views import Entry
from stream.batches import Record
from topics.specs import StreamTopics


class Models:
    """The fold of `<s>.models`. Only what changed is encoded anew, about 8 µs a model."""

    def __init__(self, stream: str, routing: Routing) -> None:
        self._stream = stream
        self._routing = routing
        self._topic = StreamTopics(stream).models
        self._versions: dict[str, ModelVersion] = {}
        self._roles: Mapping[str, tuple[str, ...]] = {}
        self._entries: dict[str, Entry] = {}
        self._stale: set[str] = set()

    async def recall(self, pieces: Pieces, oldest_ms: int) -> None:
        """Read the whole log: a model is shown as long as its file is there."""
        found = [records async for records in pieces]
        while found:
            self.take(found.pop())
            await asyncio.sleep(0)  # a log of many versions must not hold up what else the worker does

    def take(self, records: Sequence[Record]) -> None:
        """Go on with later records."""
        for record in records:
            version = decoded(ModelVersion, record, self._topic)
            if version is not None:
                known = self._versions.get(version.model_id)
                self._versions[version.model_id] = version if known is None else merged(known, version)
                self._stale.add(version.model_id)

    def entries(self) -> Mapping[str, Entry]:
        """Return what is to be shown."""
        roles = self._routing.roles()
        moved = {model_id for model_id in {**self._roles, **roles} if self._roles.get(model_id) != roles.get(model_id)}
        for model_id in (self._stale | moved) & self._versions.keys():
            version, key = self._versions[model_id], model_key(self._stream, model_id)
            if version.pruned:
                self._entries.pop(key, None)
                continue
            document = msgspec.to_builtins(version) | {"routed": roles.get(model_id, ())}
            self._entries[key] = Entry(msgspec.json.encode(document))
        self._roles = roles
        self._stale.clear()
        return self._entries
