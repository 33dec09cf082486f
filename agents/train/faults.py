"""Errors that nobody expected, in words: trainers and models come from any package."""

import traceback


def told(error: BaseException) -> str:
    """Return what kind of error it is and its message; of one without a message, in which module and line it arose."""
    kind = type(error).__name__
    if message := str(error).strip():
        return f"{kind}: {message}"
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    return f"{kind} was raised without a message in {frame.f_globals.get('__name__', 'a script')}, line {line}"
