"""Where the daemon's log goes: stderr in the foreground, rotating files when detached."""

from __future__ import annotations

import logging
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

from hfpeer.errors import BrokenCache

MAX_LOG_BYTES = 5 * 1024 * 1024
OLD_LOGS = 3
_QUIET = ("uvicorn.error", "httpx", "httpcore", "asyncio", "zeroconf", "huggingface_hub", "sqlalchemy")


def start_logging(level: str, file: Path | None) -> None:
    """Sends the log of this process to `file` (None: to stderr). Raises BrokenCache if it cannot be written."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr) if file is None else _rotating(file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
        old.close()
    root.addHandler(handler)
    root.setLevel(level.upper())
    for name in _QUIET:
        logging.getLogger(name).setLevel(max(root.level, logging.WARNING))


def _rotating(file: Path) -> RotatingFileHandler:
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        return RotatingFileHandler(
            file, maxBytes=MAX_LOG_BYTES, backupCount=OLD_LOGS, encoding="utf-8", errors="backslashreplace"
        )
    except OSError as error:
        raise BrokenCache(f"The log {file} cannot be written: {error}.", hint="Check HFPEER_HOME.") from error
