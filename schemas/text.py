"""What people read of a declaration and of a log alike."""


def duration(length_ms: int) -> str:
    """Return a length of time in days, hours and minutes, without those that are none."""
    minutes = length_ms // 60_000
    parts = ((minutes // 1_440, "d"), (minutes // 60 % 24, "h"), (minutes % 60, "min"))
    return " ".join(f"{count} {unit}" for count, unit in parts if count) or "0 min"
