"""Where each view is in Redis, and what its value is. The logs are the truth; a view may be gone at any time.

| key | type | value |
|---|---|---|
| `drift:stats:<stream>` | string | the newest drift report, JSON as in `<s>.drift` |
| `drift:stats:<stream>:feature:<name>` | hash | one feature's figures in it, except for nulls |
| `drift:stats:<stream>:prediction:<name>` | hash | the same of the `score`, and of the `class` if there are some |
| `drift:alert:<stream>:<id>` | string | an alert of drift, JSON as in `<s>.alerts`; it goes after 30 days |
| `ml:model:<stream>:<id>` | string | a registered model, JSON as in `<s>.models`, and what it is `routed` as |
| `ab:experiment:<stream>:<id>` | string | an experiment, JSON: shares, newest report; it goes 30 days after its end |
| `ab:assignment:<stream>:<experiment>:<entity>` | string | an entity's variant, JSON; for a day, if somebody asked |
| `views:mark:<stream>` | string | how far in the logs these views are, or that they are being written |
| `views:probe` | string | what the doctor writes, reads and removes |

The stream stands in each, because ids are unique within a stream only: two learners may both make `online@4000`, and
two teams may both try `new-model`. A colon in an experiment's id is written %3A (and % is %25) where an entity follows.
Every model is there whose file was not pruned. A model is `routed` as nothing, or as some of: champion, shadow,
previous, "variant <name>".
"""

import re
from typing import Final

PROBE_KEY: Final = "views:probe"


def mark_key(stream: str) -> str:
    """Return the key that tells which views of the stream are there."""
    return f"views:mark:{stream}"


def report_key(stream: str) -> str:
    """Return the key of the newest drift report; those of its columns begin with it, too."""
    return f"drift:stats:{stream}"


def alert_key(stream: str, alert_id: str) -> str:
    """Return the key of an alert of drift."""
    return f"drift:alert:{stream}:{alert_id}"


def model_key(stream: str, model_id: str) -> str:
    """Return the key of a model."""
    return f"ml:model:{stream}:{model_id}"


def experiment_key(stream: str, experiment_id: str) -> str:
    """Return the key of an experiment or rollout."""
    return f"ab:experiment:{stream}:{experiment_id}"


def assignment_key(stream: str, experiment_id: str, entity_id: str) -> str:
    """Return the key of what an entity is assigned to; no two pairs of ids have the same."""
    quoted = experiment_id.replace("%", "%25").replace(":", "%3A")
    return f"ab:assignment:{stream}:{quoted}:{entity_id}"


def assignments(stream: str) -> re.Pattern[bytes]:
    """Return what all assignments of a stream match. Nothing in a stream's name is special in a pattern."""
    return re.compile(f"ab:assignment:{stream}:".encode())


def views_of(stream: str) -> re.Pattern[bytes]:
    """Return what all views of a stream match, whoever wrote them: not the mark, but the one of earlier versions."""
    many = rf"(drift:stats|drift:alert|ml:model|ab:experiment|ab:assignment):{stream}:"
    return re.compile(rf"{many}|(drift:stats|drift:views):{stream}\Z".encode())
