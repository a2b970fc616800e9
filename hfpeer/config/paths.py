"""The folders of a node: its own home, and the Hugging Face cache that it shares with other tools.

This module only computes paths; it creates nothing.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hfpeer.config.keys import expanded, readable
from hfpeer.errors import InvalidName
from hfpeer.system.ownership import is_own_folder, read_own, user_name

_MAX_SOCKET_PATH_BYTES = 100
"""`sun_path` holds 104 bytes on macOS and 108 on Linux, the final NUL included."""


@dataclass(frozen=True)
class Places:
    """The folders of one node: `home` has hfpeer's own files, `cache` is the Hub cache."""

    home: Path
    cache: Path

    def __post_init__(self) -> None:
        """Raises InvalidName for a path that is not UTF-8."""
        readable(self.home)
        readable(self.cache)

    @property
    def node_id_file(self) -> Path:
        return self.home / "node-id"

    @property
    def pid_file(self) -> Path:
        """A running daemon holds a lock (flock) on it."""
        return self.home / "daemon.pid"

    @property
    def log_file(self) -> Path:
        return self.home / "logs" / "hfpeerd.log"

    @property
    def control_socket(self) -> Path:
        """The Unix socket of the control door. If home's path is too long for a socket, it is in a folder for temporary
        files of this user."""
        plain = self.home / "control.sock"
        return plain if len(os.fsencode(plain)) <= _MAX_SOCKET_PATH_BYTES else self._far_control_socket()

    def _far_control_socket(self) -> Path:
        """The path that the daemon wrote into the pid file, else the path that it would choose. The two can differ,
        because a command may have another environment than the daemon."""
        import hashlib  # these two are slow to import and seldom needed
        import tempfile

        name = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]
        written = _written_socket(self.pid_file)
        if written is not None and written.stem == name:
            return written
        run = os.environ.get("XDG_RUNTIME_DIR", "")
        near = Path(run) / "hfpeer" / f"{name}.sock"
        if near.is_absolute() and len(os.fsencode(near)) <= _MAX_SOCKET_PATH_BYTES and is_own_folder(Path(run)):
            return near
        own = Path(f"hfpeer-{os.geteuid()}") / f"{name}.sock"
        near = Path(tempfile.gettempdir()) / own
        return near if len(os.fsencode(near)) <= _MAX_SOCKET_PATH_BYTES else Path("/tmp") / own


def _written_socket(pid_file: Path) -> Path | None:
    """The path on the last line of a daemon's pid file."""
    try:
        lines = read_own(pid_file).decode().splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    return Path(lines[-1]) if len(lines) > 1 and lines[-1].startswith("/") else None


NO_HOME = Path("/nonexistent")
"""The home of a user who has none, as Debian names it."""


def user_home(environ: Mapping[str, str]) -> Path:
    """The home folder of this user; NO_HOME for a user id without an entry in /etc/passwd and without HOME, as a
    container may have."""
    try:
        return Path(environ.get("HOME") or Path.home())
    except RuntimeError:
        return NO_HOME


def folder_without_locks(home: Path) -> Path:
    """The folder of the catalog for a home on a volume without the locks that SQLite needs: on this machine's disk."""
    import hashlib  # seldom needed

    name = hashlib.sha256(os.fsencode(home.absolute())).hexdigest()[:16]
    return Path("/var/tmp") / f"hfpeer-{os.geteuid()}" / name


def default_home(environ: Mapping[str, str]) -> Path:
    """`HFPEER_HOME`, else the platform's folder for a user's application data. Raises InvalidName for a user without a
    home."""
    chosen = environ.get("HFPEER_HOME")
    if chosen:
        return readable(Path(chosen).expanduser().absolute())
    import platformdirs

    if not environ.get("XDG_DATA_HOME") and user_home(environ) == NO_HOME:
        raise _no_home("HFPEER_HOME", "for hfpeer's own data")
    return Path(platformdirs.user_data_dir("hfpeer", appauthor=False))


def _no_home(variable: str, use: str) -> InvalidName:
    return InvalidName(
        f"User {user_name(os.geteuid())} has no home folder, and {variable} is not set.",
        hint=f"Set {variable} to a folder {use} to which this user may write.",
        variable=variable,
    )


def chosen_cache(environ: Mapping[str, str]) -> Path | None:
    """The Hub cache that the environment names, as huggingface_hub reads it; None when it names none. Raises
    InvalidName for a text that is no path of this system.

    Source: huggingface_hub `constants`: HF_HUB_CACHE, HUGGINGFACE_HUB_CACHE, then HF_HOME.
    """
    for name in ("HFPEER_CACHE", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if environ.get(name):
            return _folder_of(environ, name)
    return _folder_of(environ, "HF_HOME") / "hub" if environ.get("HF_HOME") else None


def _folder_of(environ: Mapping[str, str], name: str) -> Path:
    try:
        return expanded(environ[name]).absolute()
    except InvalidName as error:
        raise InvalidName(
            f"The environment variable {name}: {error.message}", hint=error.hint, **error.facts
        ) from error


def xet_cache(cache: Path, environ: Mapping[str, str]) -> Path | None:
    """The folder of hf_xet's chunks: HF_XET_CACHE, else `xet` beside the Hub cache in HF_HOME; None if there is none.

    Source: huggingface_hub `constants`.
    """
    chosen = environ.get("HF_XET_CACHE")
    if chosen:
        return Path(os.path.expandvars(chosen)).expanduser().absolute()
    return cache.parent / "xet" if cache.name == "hub" else None


def default_cache(environ: Mapping[str, str]) -> Path:
    """`~/.cache/huggingface/hub`, or the same below XDG_CACHE_HOME. Raises InvalidName for a user without a home."""
    base = _cache_base(environ)
    if base.is_relative_to(NO_HOME):
        raise _no_home("HF_HOME", "for the Hugging Face cache")
    return base / "huggingface" / "hub"


def datasets_cache(environ: Mapping[str, str]) -> Path:
    """The cache of the `datasets` library: HF_DATASETS_CACHE, else `datasets` in HF_HOME. Source: datasets `config`."""
    chosen = environ.get("HF_DATASETS_CACHE")
    if chosen:
        return Path(chosen).expanduser().absolute()
    home = environ.get("HF_HOME") or str(_cache_base(environ) / "huggingface")
    return Path(os.path.expandvars(home)).expanduser().absolute() / "datasets"


def _cache_base(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("XDG_CACHE_HOME") or user_home(environ) / ".cache").expanduser().absolute()
