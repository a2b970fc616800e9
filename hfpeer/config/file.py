"""Reads and writes `settings.toml`, the settings file below the home of a node. Comments stay when a key changes."""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfpeer.config.keys import Key
from hfpeer.errors import BrokenCache, InvalidName
from hfpeer.system.ownership import make_own_folder, read_own, write_own

if TYPE_CHECKING:
    import tomlkit

FILE_NAME = "settings.toml"
VALUES = {"cache"}
"""Keys with a value that are the beginning of other keys too: `"cache.max_size"` stands in quotes beside `cache`."""


def write_setting(home: Path, key: Key, text: str | None) -> None:
    """Sets one key in the file below `home`, or removes it (None). Comments and order in the file stay.

    Raises InvalidName for a bad value, BrokenCache when the file cannot be written or the home is not this user's.
    """
    if text is not None:
        key.value(text, "the command line")
    make_own_folder(home)
    path = home / FILE_NAME
    document = _load(path)
    table, last = _place(document, key.name)
    if text is None:
        table.pop(last, None)
    else:
        inner = table.get(last)
        table[last] = text
        if isinstance(inner, Mapping):
            table.update({f"{last}.{name}": value for name, value in inner.items()})
    _replace(path, document)


def _place(document: Any, name: str) -> tuple[Any, str]:
    """The table of a key, and the rest of its name in that table."""
    table, parts = document, name.split(".")
    for index, part in enumerate(parts[:-1]):
        if part in VALUES and not isinstance(table.get(part), Mapping):
            return table, ".".join(parts[index:])
        table = table.setdefault(part, {})
    return table, parts[-1]


def read_file(home: Path, names: Collection[str]) -> dict[str, str]:
    """The texts that the file below `home` sets, by key; none if there is no file.

    Raises InvalidName for a key that is not one of `names` and for text that is not TOML, and BrokenCache when the file
    cannot be read.
    """
    path = home / FILE_NAME
    flat: dict[str, str] = {}

    def walk(prefix: str, table: Mapping[str, Any]) -> None:
        for name, value in table.items():
            dotted = f"{prefix}{name}"
            if isinstance(value, Mapping):
                walk(f"{dotted}.", value)
            elif dotted not in names:
                from hfpeer.language.near import did_you_mean, near  # only a mistake needs it

                raise InvalidName(
                    f"{path} sets {dotted!r}, which is no setting.{did_you_mean(near(dotted, names))}",
                    hint="Take that line out of the file, or mend it.",
                )
            else:
                flat[dotted] = ",".join(map(str, value)) if isinstance(value, list) else _as_text(value)

    walk("", _values(path))
    return flat


def _values(path: Path) -> Mapping[str, Any]:
    """The tables of the file. Python's own TOML reader loads faster than tomlkit, and only when there is a file."""
    if sys.version_info >= (3, 11):
        try:
            text = read_own(path).decode()
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise _unreadable(path, error) from error
        import tomllib

        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise _not_toml(path, error) from error
    return _load(path).unwrap()


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _load(path: Path) -> tomlkit.TOMLDocument:
    import tomlkit
    import tomlkit.exceptions

    try:
        return tomlkit.parse(read_own(path).decode())
    except FileNotFoundError:
        return tomlkit.document()
    except (OSError, UnicodeDecodeError) as error:
        raise _unreadable(path, error) from error
    except tomlkit.exceptions.ParseError as error:
        raise _not_toml(path, error) from error


def _unreadable(path: Path, error: Exception) -> BrokenCache:
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        return BrokenCache(f"The settings file {path} cannot be read: {reason}.", hint="Check the file.")
    return BrokenCache(f"The settings file {path} is no text.", hint="Mend it, or delete it.")


def _not_toml(path: Path, error: Exception) -> InvalidName:
    return InvalidName(f"The settings file {path} is not TOML: {error}.", hint="Mend it, or delete it.")


def _replace(path: Path, document: tomlkit.TOMLDocument) -> None:
    import tomlkit

    try:
        write_own(path, tomlkit.dumps(document).encode())
    except OSError as error:
        raise BrokenCache(
            f"The settings file {path} cannot be written: {error.strerror or error}.",
            hint="Make room on its disk or correct its permissions, or set HFPEER_HOME to another folder.",
        ) from error
