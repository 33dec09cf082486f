"""What an examination says: one thing, how it is, and what to do about it."""

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "problem", "skipped"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    A *problem* keeps something from working; a *warning* works, but a person should know. What was *skipped* could
    not be looked at. `remedy` is what to do; empty where the sentence says it, or nothing is to be done.
    """

    subject: str
    status: Status
    sentence: str
    remedy: str = ""


def ok(subject: str, sentence: str) -> Finding:
    """Return that something is as it should be."""
    return Finding(subject, "ok", sentence)


def warning(subject: str, sentence: str, remedy: str = "") -> Finding:
    """Return that something works, but a person should know."""
    return Finding(subject, "warning", sentence, remedy)


def problem(subject: str, sentence: str, remedy: str = "") -> Finding:
    """Return that something keeps the stream from working."""
    return Finding(subject, "problem", sentence, remedy)


def skipped(subject: str, sentence: str) -> Finding:
    """Return that something could not be looked at, and why."""
    return Finding(subject, "skipped", sentence)
