"""Text of an alert as a header can hold it."""


def header_text(text: str) -> str:
    """Return `text` as a header can hold it; another character becomes its code, so that ids stay apart."""
    return "".join(c if "!" <= c <= "~" and c != "%" else f"%{ord(c):x};" for c in text)
