"""Prints and writes one setting: the value in force, and whether the environment overrides the file."""

from __future__ import annotations

from typing import Any

from hfpeer.config.file import write_setting
from hfpeer.config.keys import Key
from hfpeer.config.settings import Settings, setting_text, setting_value
from hfpeer.errors import HfpeerError
from hfpeer_cli.invocation import Invocation


def print_value(invocation: Invocation, key: Key) -> None:
    """Prints the value of a setting in force."""
    invocation.output.result(setting_text(invocation.settings, key), _facts(invocation.settings, key))


def note_restart(invocation: Invocation) -> None:
    """Prints a note if a daemon runs, which works by the settings of its start."""
    from hfpeer.config.paths import Places
    from hfpeer.control.holder import is_locked

    if is_locked(Places(invocation.home, invocation.home).pid_file):
        invocation.output.note("Restart to apply: `hfpeer daemon restart`.")


def write(invocation: Invocation, key: Key, text: str | None, *, is_tried: bool = False, **facts: Any) -> Settings:
    """Writes a setting into the file, or removes it (None), and prints the value in force; with `--json` also `facts`.
    Returns the settings after that. With `is_tried` it first raises what would be wrong at the next start."""
    if is_tried and text is not None:
        _try(invocation, key, text)
    write_setting(invocation.home, key, text)
    settings = Invocation(invocation.environ).settings
    value, origin = setting_text(settings, key), settings.origins[key.name]
    invocation.output.result(f"{key.name} = {value}", {**_facts(settings, key), **facts})
    if "environment" in origin:
        invocation.output.note(f"The file is changed, but the {origin} overrides it.")
    return settings


def _try(invocation: Invocation, key: Key, text: str) -> None:
    from hfpeer.node.doctor.settings import LISTENERS, try_setting

    value = key.value(text, "the command line")
    try:
        settings = invocation.settings
    except HfpeerError:
        return  # the file is broken already, and this command may mend it
    try:
        try_setting(key, value, settings)
    except HfpeerError as error:
        if key.name in LISTENERS:
            error.hint = f"{error.hint} To write it all the same: `hfpeer conf set {key.name} {text} --force`."
        raise


def _facts(settings: Settings, key: Key) -> dict[str, Any]:
    return {"key": key.name, "value": setting_value(settings, key), "from": settings.origins[key.name]}
