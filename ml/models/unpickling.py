"""Pickles, opened only for the classes they are known to need.

A pickle may call whatever it can name. Here it can name what the caller lists, class by class, and nothing
else. That leaves it no code to run, but a hostile pickle could still change the listed classes or fill the
memory: check hash and signature before.
"""

import io
import pickle
from collections.abc import Set
from typing import Any

from ml.errors import ModelPayloadInvalid

ClassName = tuple[str, str]
"""Module and name, as a pickle gives them: ("collections", "Counter")."""


def loads(payload: bytes, allowed: Set[ClassName]) -> Any:
    """Return the object in `payload`.

    Raises ModelPayloadInvalid when it names a class that is not in `allowed`, or is no whole pickle.
    """
    try:
        return _AllowListUnpickler(payload, allowed).load()
    except ModelPayloadInvalid:
        raise
    except Exception as error:  # a damaged pickle can make any listed class raise anything
        raise ModelPayloadInvalid(f"the pickle in this model is damaged ({type(error).__name__}: {error})") from error


class _AllowListUnpickler(pickle.Unpickler):
    def __init__(self, payload: bytes, allowed: Set[ClassName]) -> None:
        # Without fix_imports: it would look up another name than the one that was checked.
        super().__init__(io.BytesIO(payload), fix_imports=False)
        self._allowed = allowed

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._allowed:
            raise ModelPayloadInvalid(
                f"the pickle in this model wants {module}.{name}, which is not on the list of allowed classes; "
                "it was not made by Penstock, or by another version of it"
            )
        return super().find_class(module, name)
