"""Hyper-parameters: an algorithm says what it takes by a frozen struct with types and limits."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from ml.errors import ModelParametersInvalid

Parameters = TypeVar("Parameters", bound=msgspec.Struct)


def checked(algorithm: str, given: Mapping[str, Any], kind: type[Parameters]) -> Parameters:
    """Return `given` as a `kind`. Raises ModelParametersInvalid with the first thing that is wrong."""
    unknown = sorted(set(given) - set(kind.__struct_fields__))
    if unknown:
        known = ", ".join(kind.__struct_fields__)
        raise ModelParametersInvalid(f"{algorithm} has no parameter {unknown[0]!r}; it has: {known}")
    try:
        return msgspec.convert(dict(given), kind)
    except msgspec.ValidationError as error:
        raise ModelParametersInvalid(f"{algorithm} cannot take these parameters: {error}") from error


def require_same(algorithm: str, given: Mapping[str, Any], own: Parameters) -> None:
    """Raise ModelParametersInvalid unless a model with `own` parameters is what `given` asks for."""
    asked = checked(algorithm, {**msgspec.structs.asdict(own), **given}, type(own))
    for name in own.__struct_fields__:
        if getattr(asked, name) != getattr(own, name):
            raise ModelParametersInvalid(
                f"this {algorithm} model was begun with {name} = {getattr(own, name)!r}, which cannot become "
                f"{getattr(asked, name)!r}"
            )
