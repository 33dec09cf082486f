"""The demo's child processes: started by it, watched by it, always ended by it."""

import asyncio
import contextlib
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from schemas.errors import FatalError

_LAST_WORDS_BYTES = 2_000


@dataclass(frozen=True, slots=True)
class Child:
    """One Python module in a process of its own. What it writes to stderr goes to the file `log`."""

    name: str
    process: Process
    log: Path

    @classmethod
    async def start(cls, name: str, *arguments: str, environment: Mapping[str, str], folder: Path, pipes: bool) -> Self:
        """Start `python -m <arguments>`, out of reach of the terminal's Ctrl-C.

        With `pipes` stdin and stdout are ours, otherwise stdin is empty and stdout goes to the log, too.
        """
        log = folder / f"{name}.log"
        with log.open("wb") as file:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                *arguments,
                env=environment,
                stdin=PIPE if pipes else asyncio.subprocess.DEVNULL,
                stdout=PIPE if pipes else file,
                stderr=file,
                start_new_session=True,
            )
        return cls(name, process, log)

    @property
    def running(self) -> bool:
        """Whether the process has not ended yet."""
        return self.process.returncode is None

    def failure(self) -> FatalError:
        """Return what to raise when the process has ended but should not have, with the end of its log."""
        words = self.log.read_bytes()[-_LAST_WORDS_BYTES:].decode(errors="replace").strip()
        return FatalError(f"{self.name} ended with exit code {self.process.returncode}:\n{words or '(no message)'}")

    async def output(self, timeout_s: float) -> bytes:
        """Wait for the end and return stdout. Raises FatalError when the process failed or took too long."""
        try:
            async with asyncio.timeout(timeout_s):
                out, _ = await self.process.communicate(b"")
        except TimeoutError:
            raise FatalError(f"{self.name} took more than {timeout_s:g} s") from None
        finally:
            await self.stop(grace_s=0)
        if self.process.returncode:
            raise self.failure()
        return out

    async def stop(self, grace_s: float) -> None:
        """Ask the process to end, and after `grace_s` end it; return when it is gone. It may be gone already."""
        with contextlib.suppress(ProcessLookupError):
            if self.running:
                self.process.terminate()
            try:
                async with asyncio.timeout(grace_s):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
        await self.process.wait()
