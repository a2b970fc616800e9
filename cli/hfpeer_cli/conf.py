"""`hfpeer conf`: what can be set, what it is now, and where that comes from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from hfpeer.names import Address
from hfpeer.settings import KEYS, Key, find_key, setting_text, write_setting
from hfpeer_cli.grammar import PORT, Noun, Word, pass_invocation
from hfpeer_cli.invocation import Invocation

KEY = Word("key", find_key)
WHEN = "A daemon that runs takes it up at its next start: `hfpeer daemon restart`."


@click.group(
    "conf",
    cls=Noun,
    no_args_is_help=True,
    examples=["hfpeer conf ls", "hfpeer conf cache set /data/hub", "hfpeer conf set mdns false"],
)
def conf() -> None:
    """Settings: the file in HFPEER_HOME, which the environment overrides."""


@conf.command("ls", examples=["hfpeer conf ls", "hfpeer conf ls --json"])
@pass_invocation
def ls(invocation: Invocation) -> None:
    """List every setting: its value, where that comes from, what it does."""
    settings = invocation.settings
    facts = [
        {
            "key": key.name,
            "value": setting_text(settings, key.name),
            "from": settings.origins[key.name],
            "summary": key.summary,
        }
        for key in KEYS
    ]
    rows = [(fact["key"], fact["value"] or "-", fact["from"], fact["summary"]) for fact in facts]
    invocation.output.table(("KEY", "VALUE", "FROM", "WHAT IT DOES"), rows, facts)


@conf.command("get", examples=["hfpeer conf get upstreams"])
@click.argument("key", type=KEY)
@pass_invocation
def get(invocation: Invocation, key: Key) -> None:
    """Print the value of a setting."""
    _print_value(invocation, key)


@conf.command(
    "set",
    examples=[
        "hfpeer conf set lan.listen 192.168.1.10:9437",
        "hfpeer conf set upstreams origin=https://huggingface.co",
    ],
)
@click.argument("key", type=KEY)
@click.argument("value")
@pass_invocation
def set(invocation: Invocation, key: Key, value: str) -> None:
    """Change a setting in the file."""
    _write(invocation, key, value)


@conf.command("reset", examples=["hfpeer conf reset upstreams"])
@click.argument("key", type=KEY)
@pass_invocation
def reset(invocation: Invocation, key: Key) -> None:
    """Take a setting out of the file, so that its default holds."""
    _write(invocation, key, None)


@conf.group(
    "cache", cls=Noun, no_args_is_help=True, examples=["hfpeer conf cache get", "hfpeer conf cache set /data/hub"]
)
def cache() -> None:
    """The Hugging Face cache that this node keeps."""


@cache.command("get", examples=["hfpeer conf cache get"])
@pass_invocation
def get_cache(invocation: Invocation) -> None:
    """Print the cache's folder."""
    _print_value(invocation, find_key("cache"))


@cache.command("set", examples=["hfpeer conf cache set /data/hub"])
@click.argument("folder", metavar="DIR", type=click.Path(file_okay=False, path_type=Path))
@pass_invocation
def set_cache(invocation: Invocation, folder: Path) -> None:
    """Keep the cache in another folder. Nothing is moved there, and nothing is removed."""
    _write(invocation, find_key("cache"), str(folder.expanduser().absolute()))


@cache.command("reset", examples=["hfpeer conf cache reset"])
@pass_invocation
def reset_cache(invocation: Invocation) -> None:
    """Keep the cache where huggingface_hub has it."""
    _write(invocation, find_key("cache"), None)


@conf.group("port", cls=Noun, no_args_is_help=True, examples=["hfpeer conf port get", "hfpeer conf port set 9500"])
def port() -> None:
    """The port where peers reach this node: that of lan.listen."""


@port.command("get", examples=["hfpeer conf port get"])
@pass_invocation
def get_port(invocation: Invocation) -> None:
    """Print the port."""
    number = invocation.settings.lan_listen.port
    origin = invocation.settings.origins["lan.listen"]
    invocation.output.result(str(number), {"key": "port", "value": number, "from": origin})


@port.command("set", examples=["hfpeer conf port set 9500"])
@click.argument("number", metavar="PORT", type=PORT)
@pass_invocation
def set_port(invocation: Invocation, number: int) -> None:
    """Listen for peers on another port."""
    _write(invocation, find_key("lan.listen"), str(replace(invocation.settings.lan_listen, port=number)))


@port.command("reset", examples=["hfpeer conf port reset"])
@pass_invocation
def reset_port(invocation: Invocation) -> None:
    """Listen for peers on the usual port."""
    key = find_key("lan.listen")
    usual = Address.parse(key.default)
    kept = replace(invocation.settings.lan_listen, port=usual.port)
    _write(invocation, key, None if kept == usual else str(kept))


def _print_value(invocation: Invocation, key: Key) -> None:
    settings = invocation.settings
    value = setting_text(settings, key.name)
    invocation.output.result(value, {"key": key.name, "value": value, "from": settings.origins[key.name]})


def _write(invocation: Invocation, key: Key, text: str | None) -> None:
    write_setting(invocation.home, key.name, text)
    settings = Invocation(invocation.environ).settings
    value, origin = setting_text(settings, key.name), settings.origins[key.name]
    output = invocation.output
    output.result(f"{key.name} = {value}", {"key": key.name, "value": value, "from": origin})
    if origin.startswith("environment"):
        output.note(f"The file is changed, but the {origin} overrides it.")
    output.note(WHEN)
