"""What a pickle may name, and what it may not."""

import builtins
import copyreg
import functools
import operator
import os
import pickle
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import pytest

from ml.errors import ModelPayloadInvalid
from ml.models import unpickling

ALLOWED = frozenset({("collections", "Counter"), ("collections", "defaultdict"), ("builtins", "float")})


class _Calls:
    """Pickled, it asks the reader to call `function(*arguments)`."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def test_what_is_listed_comes_back() -> None:
    means = defaultdict(float, {"a": 1.5})
    listed = [means, Counter("abba"), [None, True, "text", b"bytes", {1, 2}]]
    assert unpickling.loads(pickle.dumps(listed), ALLOWED) == listed


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (os.system, "posix.system"),
        (builtins.eval, "builtins.eval"),
        (builtins.exec, "builtins.exec"),
        (builtins.getattr, "builtins.getattr"),
        (builtins.__import__, "builtins.__import__"),
        (builtins.open, "io.open"),
        (functools.partial, "functools.partial"),
        (operator.attrgetter, "operator.attrgetter"),
        (copyreg.pickle, "copyreg.pickle"),
        (OrderedDict, "collections.OrderedDict"),
        (unpickling.loads, "ml.models.unpickling.loads"),
    ],
)
@pytest.mark.parametrize("protocol", range(6))
def test_what_is_not_listed_is_refused_by_name(function: Any, name: str, protocol: int) -> None:
    module, _, function_name = name.rpartition(".")
    renamed = {"builtins": "__builtin__", "copyreg": "copy_reg"} if protocol < 3 else {}
    with pytest.raises(ModelPayloadInvalid, match=f"wants {renamed.get(module, module)}.{function_name}, which is not"):
        unpickling.loads(pickle.dumps(function, protocol), ALLOWED)


def test_a_refused_call_is_never_made(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    for gadget in (
        _Calls(os.system, f"touch {ran}"),
        _Calls(builtins.exec, f"import pathlib; pathlib.Path({str(ran)!r}).touch()"),
    ):
        pickle.loads(pickle.dumps(gadget))
        assert ran.exists(), "the gadget is harmless, so this test shows nothing"
        ran.unlink()
        with pytest.raises(ModelPayloadInvalid):
            unpickling.loads(pickle.dumps([Counter(), gadget]), ALLOWED)
        assert not ran.exists()


@pytest.mark.parametrize("name", ["Counter.__init__", "defaultdict.__class__", "_sys.modules", "abc.sys"])
def test_a_listed_class_opens_no_way_to_what_hangs_on_it(name: str) -> None:
    reach = b"\x80\x04\x8c\x0bcollections" + b"\x8c" + bytes([len(name)]) + name.encode() + b"\x93."
    with pytest.raises(ModelPayloadInvalid, match="not on the list"):
        unpickling.loads(reach, ALLOWED)


def test_what_is_looked_up_is_the_very_name_that_was_checked() -> None:
    with pytest.raises(ModelPayloadInvalid, match=r"wants __builtin__\.float"):
        unpickling.loads(b"c__builtin__\nfloat\n.", ALLOWED)
    with pytest.raises(ModelPayloadInvalid, match="No module named '__builtin__'"):
        unpickling.loads(b"c__builtin__\nfloat\n.", frozenset({("__builtin__", "float")}))


@pytest.mark.parametrize(
    "payload",
    [b"", b".", b"not a pickle", b"\x80\x09.", pickle.dumps([1.0] * 10)[:-3], pickle.dumps(_Calls(float, "one"))],
)
def test_a_damaged_pickle_is_one_sentence(payload: bytes) -> None:
    with pytest.raises(ModelPayloadInvalid, match="the pickle in this model is damaged"):
        unpickling.loads(payload, ALLOWED)
