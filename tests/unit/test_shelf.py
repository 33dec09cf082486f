"""The models in memory: which are let in, which have to go."""

import asyncio
import threading
from collections.abc import Callable

import msgspec
import numpy as np
import pytest

from agents.shelf import ModelShelf, ModelUnusable
from schemas.events import ModelVersion
from schemas.streams import StreamSpec
from stores.artifacts import ArtifactMissing
from tests.support import Model, version_of

FLIGHTS = StreamSpec(name="flights", features=("a", "b"))
FRAUD = StreamSpec(name="fraud", features=("a", "b"))


class Opener:
    """Opens any version, and remembers which ones and in which thread."""

    def __init__(self) -> None:
        self.opened: list[str] = []
        self.threads: set[int] = set()
        self.errors: list[Exception] = []
        self.models: dict[str, Model] = {}

    def __call__(self, version: ModelVersion) -> Model:
        self.opened.append(version.model_id)
        self.threads.add(threading.get_ident())
        if self.errors:
            raise self.errors.pop(0)
        return self.models.setdefault(version.model_id, Model(memory_bytes=version.memory_bytes))


@pytest.fixture
def opener() -> Opener:
    return Opener()


def _names(shelf: ModelShelf) -> list[str]:
    return sorted(model_id for _, model_id, _ in shelf.loaded)


async def test_a_model_is_opened_once_for_all_who_ask_and_never_on_the_event_loop(opener: Opener) -> None:
    shelf = ModelShelf(opener, 1000)
    version = version_of(FLIGHTS, "m1")
    first, second = await asyncio.gather(shelf.get(FLIGHTS, version), shelf.get(FLIGHTS, version))
    assert first is second is await shelf.get(FLIGHTS, version)
    assert opener.opened == ["m1"]
    assert threading.get_ident() not in opener.threads
    assert list(shelf.loaded) == [("flights", "m1", 100)]


async def test_a_model_has_predicted_before_it_is_handed_out(opener: Opener) -> None:
    await ModelShelf(opener, 1000).get(FLIGHTS, version_of(FLIGHTS, "m1"))
    [matrix] = opener.models["m1"].seen
    assert matrix.dtype == np.float32
    assert matrix.shape[1] == 2


async def test_how_large_a_model_is_is_taken_from_its_registration(opener: Opener) -> None:
    opener.models["m1"] = Model()
    del opener.models["m1"].memory_bytes
    shelf = ModelShelf(opener, 1000)
    await shelf.get(FLIGHTS, version_of(FLIGHTS, "m1", memory_bytes=345))
    assert list(shelf.loaded) == [("flights", "m1", 345)]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"stream": "fraud"}, "belongs to stream 'fraud', not to 'flights'"),
        ({"pruned": True}, "was pruned: its file was deleted"),
        ({"features": ("b", "a")}, "b, a instead of a, b"),
        ({"task": "multiclass", "classes": ("x", "y")}, "is multiclass with classes"),
    ],
)
async def test_a_model_of_another_stream_shape_is_refused_unopened(
    opener: Opener, change: dict[str, object], sentence: str
) -> None:
    version = msgspec.structs.replace(version_of(FLIGHTS, "m1"), **change)
    with pytest.raises(ModelUnusable, match=sentence):
        await ModelShelf(opener, 1000).get(FLIGHTS, version)
    assert opener.opened == []


async def test_a_model_that_is_not_what_its_registration_says_is_refused(opener: Opener) -> None:
    opener.models["m1"] = Model(n_features=3)
    shelf = ModelShelf(opener, 1000)
    with pytest.raises(ModelUnusable, match="takes 3 features and gives 1 scores; its stream has 2 features"):
        await shelf.get(FLIGHTS, version_of(FLIGHTS, "m1"))
    assert _names(shelf) == []


async def test_a_model_that_could_not_be_had_is_tried_again_when_asked_again(opener: Opener) -> None:
    opener.errors.append(ArtifactMissing("it is gone"))
    shelf = ModelShelf(opener, 1000)
    with pytest.raises(ArtifactMissing):
        await shelf.get(FLIGHTS, version_of(FLIGHTS, "m1"))
    assert isinstance(await shelf.get(FLIGHTS, version_of(FLIGHTS, "m1")), Model)


async def test_whatever_a_model_raises_while_it_is_opened_makes_it_unusable_and_no_more(opener: Opener) -> None:
    opener.errors.append(KeyError("trees"))
    with pytest.raises(ModelUnusable, match=r"m1.*KeyError.*trees"):
        await ModelShelf(opener, 1000).get(FLIGHTS, version_of(FLIGHTS, "m1"))


async def test_whatever_a_model_raises_at_its_first_prediction_makes_it_unusable_and_no_more(opener: Opener) -> None:
    class Broken(Model):
        def predict(self, matrix: object) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
            raise ZeroDivisionError("oops")

    opener.models["m1"] = Broken()
    with pytest.raises(ModelUnusable, match=r"m1.*ZeroDivisionError.*oops"):
        await ModelShelf(opener, 1000).get(FLIGHTS, version_of(FLIGHTS, "m1"))


async def test_the_least_recently_used_goes_first_when_there_is_no_room(opener: Opener) -> None:
    shelf = ModelShelf(opener, 300)
    for name in ("m1", "m2", "m3", "m1", "m4"):
        await shelf.get(FLIGHTS, version_of(FLIGHTS, name))
    assert _names(shelf) == ["m1", "m3", "m4"]


async def test_a_routed_model_never_goes(opener: Opener) -> None:
    shelf = ModelShelf(opener, 300)
    champion = version_of(FLIGHTS, "champion")
    await shelf.get(FLIGHTS, champion)
    shelf.route(champion)
    for number in range(10):
        await shelf.get(FLIGHTS, version_of(FLIGHTS, f"m{number}"))
    assert "champion" in _names(shelf)
    assert len(_names(shelf)) == 3


async def test_the_last_champion_may_go_once_another_is_routed(opener: Opener) -> None:
    shelf = ModelShelf(opener, 200)
    for name in ("first", "second", "third"):
        version = version_of(FLIGHTS, name)
        await shelf.get(FLIGHTS, version)
        shelf.route(version)
    assert _names(shelf) == ["second", "third"]


async def test_a_shadow_never_goes_until_the_stream_is_routed_without_it(opener: Opener) -> None:
    shelf = ModelShelf(opener, 300)
    champion, shadow = version_of(FLIGHTS, "champion"), version_of(FLIGHTS, "shadow")
    await shelf.get(FLIGHTS, champion)
    await shelf.get(FLIGHTS, shadow, [champion])
    shelf.route(champion, [shadow])
    for number in range(5):
        await shelf.get(FLIGHTS, version_of(FLIGHTS, f"m{number}"))
    assert {"champion", "shadow"} < set(_names(shelf))
    shelf.route(champion)
    for number in range(5, 10):
        await shelf.get(FLIGHTS, version_of(FLIGHTS, f"m{number}"))
    assert "champion" in _names(shelf)
    assert "shadow" not in _names(shelf)


async def test_what_is_to_be_routed_together_stays_while_the_rest_of_it_is_loaded(opener: Opener) -> None:
    shelf = ModelShelf(opener, 300)
    old = version_of(FLIGHTS, "old", memory_bytes=200)
    await shelf.get(FLIGHTS, old)
    shelf.route(old)
    champion, shadow = version_of(FLIGHTS, "champion"), version_of(FLIGHTS, "shadow")
    await shelf.get(FLIGHTS, champion)
    await shelf.get(FLIGHTS, shadow, [champion])
    assert _names(shelf) == ["champion", "old", "shadow"]


async def test_a_model_needs_room_beside_the_shadows_of_every_stream_and_what_its_own_routes_to(opener: Opener) -> None:
    shelf = ModelShelf(opener, 1000)
    shelf.route(version_of(FRAUD, "fraud"), [version_of(FRAUD, "shadow", memory_bytes=400)])
    shelf.route(version_of(FLIGHTS, "old", memory_bytes=900))
    champion = version_of(FLIGHTS, "champion", memory_bytes=300)
    await shelf.get(FLIGHTS, champion)
    with pytest.raises(ModelUnusable, match=r"m2 needs 201 bytes.*beside it take 800 of the 1,000"):
        await shelf.get(FLIGHTS, version_of(FLIGHTS, "m2", memory_bytes=201), [champion])
    await shelf.get(FLIGHTS, version_of(FLIGHTS, "m3", memory_bytes=200), [champion])
    assert opener.opened == ["champion", "m3"]


async def test_a_model_that_does_not_fit_beside_the_other_champions_is_refused_unopened(opener: Opener) -> None:
    shelf = ModelShelf(opener, 1000)
    champion = version_of(FLIGHTS, "champion", memory_bytes=600)
    await shelf.get(FLIGHTS, champion)
    shelf.route(champion)
    with pytest.raises(ModelUnusable, match=r"m2 needs 401 bytes.*beside it take 600 of the 1,000"):
        await shelf.get(FRAUD, version_of(FRAUD, "m2", memory_bytes=401))
    assert opener.opened == ["champion"]
    await shelf.get(FRAUD, version_of(FRAUD, "m3", memory_bytes=400))


async def test_a_champion_leaves_room_for_its_own_successor(opener: Opener) -> None:
    shelf = ModelShelf(opener, 1000)
    champion = version_of(FLIGHTS, "champion", memory_bytes=900)
    await shelf.get(FLIGHTS, champion)
    shelf.route(champion)
    successor = version_of(FLIGHTS, "successor", memory_bytes=1000)
    await shelf.get(FLIGHTS, successor)
    shelf.route(successor)
    assert _names(shelf) == ["successor"]


async def test_one_who_stops_waiting_takes_nothing_from_the_others() -> None:
    opening, go_on = threading.Event(), threading.Event()

    def open_slowly(version: ModelVersion) -> Model:
        opening.set()
        assert go_on.wait(10)
        return Model()

    shelf = ModelShelf(open_slowly, 1000)
    ask: Callable[[], asyncio.Task[object]] = lambda: asyncio.create_task(  # noqa: E731
        shelf.get(FLIGHTS, version_of(FLIGHTS, "m1"))
    )
    impatient, patient = ask(), ask()
    await asyncio.to_thread(opening.wait, 10)
    impatient.cancel()
    await asyncio.wait({impatient})
    go_on.set()
    assert isinstance(await asyncio.wait_for(patient, 10), Model)


async def test_what_nobody_waits_for_any_more_is_loaded_to_the_end_and_not_a_second_time(opener: Opener) -> None:
    go_on = threading.Event()

    def open_slowly(version: ModelVersion) -> Model:
        model = opener(version)
        assert go_on.wait(10)
        return model

    shelf, version = ModelShelf(open_slowly, 1000), version_of(FLIGHTS, "m1")
    for _ in range(3):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(shelf.get(FLIGHTS, version), 0.02)
    go_on.set()
    for _ in range(500):
        await asyncio.sleep(0.002)
        if _names(shelf):
            break
    assert (_names(shelf), opener.opened) == (["m1"], ["m1"])
