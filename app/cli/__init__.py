"""The `penstock` command. `main` is its entry point; errors end as one sentence and an exit code."""

from app.cli.main import main

__all__ = ["main"]
