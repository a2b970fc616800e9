"""Where things lie: the node's own home and the Hugging Face cache.

All that a node owns lies below its home; the cache belongs to every Hugging Face tool. Nothing is created here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_MAX_SOCKET_PATH_BYTES = 100
"""`sun_path` holds 104 bytes on macOS and 108 on Linux, the final NUL included."""


@dataclass(frozen=True)
class Places:
    """The folders of one node: `home` for what is hfpeer's own, `cache` for the Hub cache."""

    home: Path
    cache: Path

    @property
    def node_id_file(self) -> Path:
        return self.home / "node-id"

    @property
    def pid_file(self) -> Path:
        """Locked (flock) by a running daemon for as long as it lives."""
        return self.home / "daemon.pid"

    @property
    def log_file(self) -> Path:
        return self.home / "logs" / "hfpeerd.log"

    @property
    def control_socket(self) -> Path:
        """The Unix socket of the control door; in a private temporary folder when home's path is too long for one."""
        plain = self.home / "control.sock"
        if len(os.fsencode(plain)) <= _MAX_SOCKET_PATH_BYTES:
            return plain
        import hashlib  # these two are slow to import, and hardly anybody needs them
        import tempfile

        name = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"hfpeer-{os.getuid()}" / f"{name}.sock"


def default_home(environ: Mapping[str, str]) -> Path:
    """`HFPEER_HOME`, else the platform's folder for a user's application data."""
    chosen = environ.get("HFPEER_HOME")
    if chosen:
        return Path(chosen).expanduser().absolute()
    import platformdirs

    return Path(platformdirs.user_data_dir("hfpeer", appauthor=False))


def chosen_cache(environ: Mapping[str, str]) -> Path | None:
    """The Hub cache that the environment names, as huggingface_hub reads it; None when it names none.

    Source: huggingface_hub `constants`: HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, then HF_HOME.
    """
    for name in ("HFPEER_CACHE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environ.get(name):
            return Path(os.path.expandvars(environ[name])).expanduser().absolute()
    if environ.get("HF_HOME"):
        return Path(os.path.expandvars(environ["HF_HOME"])).expanduser().absolute() / "hub"
    return None


def default_cache(environ: Mapping[str, str]) -> Path:
    """`~/.cache/huggingface/hub`, or the same below XDG_CACHE_HOME."""
    base = environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base).expanduser().absolute() / "huggingface" / "hub"
