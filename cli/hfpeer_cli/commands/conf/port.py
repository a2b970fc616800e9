"""`hfpeer conf port`: the port where peers reach this node."""

from __future__ import annotations

from dataclasses import replace

import click

from hfpeer.config.settings import find_key
from hfpeer.net.address import Address
from hfpeer_cli.commands.conf.writing import note_restart, write
from hfpeer_cli.grammar import PORT, Noun, pass_invocation
from hfpeer_cli.invocation import Invocation


@click.group("port", cls=Noun, no_args_is_help=True, examples=["hfpeer conf port get", "hfpeer conf port set 9500"])
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
    address = str(replace(invocation.settings.lan_listen, port=number))
    write(invocation, find_key("lan.listen"), address, is_tried=True)
    note_restart(invocation)


@port.command("reset", examples=["hfpeer conf port reset"])
@pass_invocation
def reset_port(invocation: Invocation) -> None:
    """Listen for peers on the usual port."""
    key = find_key("lan.listen")
    usual = Address.parse(key.default)
    kept = replace(invocation.settings.lan_listen, port=usual.port)
    write(invocation, key, None if kept == usual else str(kept))
    note_restart(invocation)
