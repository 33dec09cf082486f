"""What a person reads of the audit log."""

from app.cli.audit import audit_lines
from schemas.events import AuditEvent

EVENT = AuditEvent(
    stream="flights",
    correlation_id="c",
    action="rollback",
    issued_by="me@here",
    outcome="done",
    reason="model m1 is the champion again",
    model_id="m1",
    revision=7,
    decided_time_ms=61_500,
    asked_reason="it was worse\n\x1b[31m",
)


def test_an_audited_command_is_a_line_with_its_second_and_the_reason_that_was_given() -> None:
    assert list(audit_lines([EVENT])) == [
        "1970-01-01 00:01:01  r7     done     rollback  m1  by me@here: model m1 is the champion again; "
        "asked because: it was worse\\n\\x1b[31m"
    ]
