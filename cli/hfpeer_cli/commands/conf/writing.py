"""Prints and writes one setting: the value in force, and whether the environment overrides the file."""

from __future__ import annotations

from typing import Any

from hfpeer.config.file import write_setting
from hfpeer.config.keys import Key
from hfpeer.config.settings import Settings, setting_text
from hfpeer_cli.invocation import Invocation

WHEN = "A daemon that runs takes it up at its next start: `hfpeer daemon restart`."


def print_value(invocation: Invocation, key: Key) -> None:
    """Prints the value of a setting in force."""
    invocation.output.result(setting_text(invocation.settings, key), _facts(invocation.settings, key))


def write(invocation: Invocation, key: Key, text: str | None, **facts: Any) -> Settings:
    """Writes a setting into the file, or removes it (None), and prints the value in force; with `--json` also `facts`.
    Returns the settings after that."""
    write_setting(invocation.home, key, text)
    settings = Invocation(invocation.environ).settings
    value, origin = setting_text(settings, key), settings.origins[key.name]
    invocation.output.result(f"{key.name} = {value}", {**_facts(settings, key), **facts})
    if "environment" in origin:
        invocation.output.note(f"The file is changed, but the {origin} overrides it.")
    return settings


def _facts(settings: Settings, key: Key) -> dict[str, Any]:
    return {"key": key.name, "value": setting_text(settings, key), "from": settings.origins[key.name]}
