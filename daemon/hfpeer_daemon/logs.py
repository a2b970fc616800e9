"""Sends the daemon's log to stderr in the foreground, and to rotating files when detached."""

from __future__ import annotations

import logging
import os
import sys
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from hfpeer.system.ownership import make_own_folder, not_writable, open_own
from hfpeer.system.printable import printable, printable_lines

MAX_LOG_BYTES = 5 * 1024 * 1024
OLD_LOGS = 3
MAX_LINE_LENGTH = 2000
MAX_TRACEBACK_LINES = 200
_QUIET = ("uvicorn.error", "httpx", "httpcore", "asyncio", "zeroconf", "huggingface_hub", "sqlalchemy")


class _Printable(logging.Formatter):
    """Writes a record in one line, whatever untrusted text it contains. Only the lines of a traceback follow, indented.

    So people and programs can rely on the start of each line.
    """

    def formatMessage(self, record: logging.LogRecord) -> str:
        line = printable(super().formatMessage(record))
        return line if len(line) <= MAX_LINE_LENGTH else f"{line[:MAX_LINE_LENGTH]}…"

    def formatException(self, *arguments: Any) -> str:
        lines = printable_lines(super().formatException(*arguments)).split("\n")
        return "\n".join(f"    {line[:MAX_LINE_LENGTH]}" for line in lines[:MAX_TRACEBACK_LINES])


def start_logging(level: str, file: Path | None) -> None:
    """Sends the log of this process to `file` (None: to stderr). Raises BrokenCache if it cannot be written."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr) if file is None else _rotating(file)
    handler.setFormatter(_Printable("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))


class _OwnRotatingFile(RotatingFileHandler):
    """A rotating log that is written only to a file of this user, never through a link."""

    def _open(self) -> TextIOWrapper:
        fd = open_own(Path(self.baseFilename), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        return open(fd, "a", encoding=self.encoding, errors=self.errors)


def _rotating(file: Path) -> RotatingFileHandler:
    try:
        make_own_folder(file.parent)
        return _OwnRotatingFile(
            file, maxBytes=MAX_LOG_BYTES, backupCount=OLD_LOGS, encoding="utf-8", errors="backslashreplace"
        )
    except OSError as error:
        raise not_writable(file, error) from error
