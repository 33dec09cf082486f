"""Secrets that stand in files of their own."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from app.sources import Source


def read_secrets(values: dict[str, Any], source: Source, secrets: Iterable[str]) -> list[str]:
    """Replace in `values` each `x_file` by the secret `x` in that file; return one sentence for each that failed.

    A line break at the end of the file is not part of the secret. The path is in no sentence: it may be the secret
    itself, given under the wrong name.
    """
    problems = []
    for secret in secrets:
        path = values.pop(f"{secret}_file", "")
        if not path:
            continue
        setting = f"{source.spelled(f'{secret}_file')} {source.where}"
        if values.get(secret):
            problems.append(f"{setting} and {source.spelled(secret)} are both set; only one can be")
        try:
            values[secret] = Path(path).read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            problems.append(f"{setting} names a file that cannot be read: {error.strerror}")
        except ValueError:
            problems.append(f"{setting} names a file that is not UTF-8 text")
        else:
            if not values[secret]:
                problems.append(f"{setting} names a file that is empty")
    return problems
