"""`hfpeer env` and `hfpeer run`: the environment that makes Hugging Face tools use this node."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

import click

from hfpeer.errors import DaemonError, InvalidName, NotFound, VersionMismatch
from hfpeer.net.address import Address
from hfpeer_cli.grammar import FOLDER, Verb, pass_invocation
from hfpeer_cli.invocation import Invocation

_cache = click.option(
    "--cache",
    type=FOLDER,
    metavar="DIR",
    help="Let the tools keep their files in DIR, not in the usual cache. It is made if it is missing.",
)
SHELLS = ("sh", "fish", "powershell")
_PROXIES = ("http_proxy", "all_proxy")


@click.command(
    "env",
    cls=Verb,
    examples=[
        'eval "$(hfpeer env)"',
        "hfpeer env --shell fish | source",
        "hfpeer env --lan",
        "hfpeer env --cache ./models >> .envrc",
    ],
)
@click.option("--shell", type=click.Choice(SHELLS), help="Whose language to print; without it, your shell's.")
@click.option("--lan", is_flag=True, help="For a machine without hfpeer: what to type there.")
@_cache
@pass_invocation
def env(invocation: Invocation, shell: str | None, lan: bool, cache: Path | None) -> None:
    """Print what makes Hugging Face tools ask this node.

    Run by your shell, it holds for every command that follows: hf, transformers, datasets, vLLM, llama.cpp, git.
    With --lan it is for other machines, which get public repos once `endpoint.listen` is an address of the LAN.
    """
    try:
        address = _endpoint(invocation)
    except VersionMismatch:
        raise
    except DaemonError as error:
        invocation.output.note(f"{error.message} {error.hint}")
        address = Address.parse(error.facts.get("endpoint") or str(invocation.settings.endpoint_listen))
    if lan and cache is not None:
        raise click.UsageError("--cache is a folder of this machine, and --lan is for others.")
    variables = _for_others(invocation, address) if lan else environment(address, invocation.environ)
    variables |= _cache_variables(invocation, cache)
    text = exports(variables, shell or _shell_of(invocation.environ))
    invocation.output.result(text, variables)


@click.command(
    "run",
    cls=Verb,
    examples=["hfpeer run -- hf download gpt2", "hfpeer run --cache /media/disk/hub -- python train.py"],
    context_settings={"ignore_unknown_options": True},
)
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND")
@_cache
@pass_invocation
def run(invocation: Invocation, command: tuple[str, ...], cache: Path | None) -> None:
    """Run one command that asks this node for what it wants from the Hub.

    Its exit code is this command's.
    """
    variables = {**invocation.environ, **environment(_endpoint(invocation), invocation.environ)}
    variables |= _cache_variables(invocation, cache)
    program = shutil.which(command[0], path=variables.get("PATH"))
    if program is None:
        raise InvalidName(
            f"There is no program {command[0]!r} in PATH.",
            hint="`hfpeer run` runs a program of this machine with HF_ENDPOINT set: `hfpeer run python app.py`. "
            "It runs no models.",
            command=command[0],
        )
    os.execve(program, command, variables)


def _cache_variables(invocation: Invocation, cache: Path | None) -> dict[str, str]:
    """The variable that makes tools keep their files in a folder, after it was checked and made."""
    if cache is None:
        return {}
    from hfpeer.node.operations.cache.folders import choose_first

    chosen = choose_first(cache, [invocation.settings.cache, *invocation.settings.read_caches])
    for sentence in chosen.consequences:
        invocation.output.note(sentence)
    return {"HF_HUB_CACHE": str(cache)}


def environment(address: Address, environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that make tools use an endpoint, without the proxy that the environment may name."""
    variables = {"HF_ENDPOINT": reachable(address).url}
    lower = {name.lower(): value for name, value in environ.items()}
    if any(lower.get(name) for name in _PROXIES):
        known = [part for part in lower.get("no_proxy", "").split(",") if part]
        exempt = ",".join(dict.fromkeys([*known, reachable(address).host]))
        variables |= {"NO_PROXY": exempt, "no_proxy": exempt}
    return variables


def lan_urls(endpoint: Address) -> list[str]:
    """The URLs at which other machines may reach an endpoint, the likeliest first; none if it is open to this machine
    only."""
    from hfpeer.peers.interfaces import find_lan_interfaces

    if endpoint.is_loopback:
        return []
    found = [Address(host, endpoint.port) for host in find_lan_interfaces(endpoint).addresses]
    return [address.url for address in found if address.ip is None or not address.ip.is_link_local]


def exports(variables: Mapping[str, str], shell: str) -> list[str]:
    """The variables as statements of a shell's language."""
    if shell == "fish":
        return [f"set -gx {name} {shlex.quote(value)};" for name, value in variables.items()]
    if shell == "powershell":
        quoted = {name: value.replace("'", "''") for name, value in variables.items()}
        return [f"$Env:{name} = '{value}'" for name, value in quoted.items()]
    return [f"export {name}={shlex.quote(value)}" for name, value in variables.items()]


def _for_others(invocation: Invocation, address: Address) -> dict[str, str]:
    """Raises NotFound when no other machine reaches the endpoint."""
    urls = lan_urls(address)
    if not urls:
        raise NotFound(
            f"Other machines do not reach this endpoint: it listens at {address}.",
            hint=f"hfpeer conf set endpoint.listen 0.0.0.0:{address.port} && hfpeer daemon restart",
            address=str(address),
        )
    for url in urls[1:]:
        invocation.output.note(f"This machine is also at {url}")
    return {"HF_ENDPOINT": urls[0]}


def _endpoint(invocation: Invocation) -> Address:
    """The address at which the daemon's endpoint listens. Raises as `require_daemon`."""
    from hfpeer.control.process import require_daemon

    return Address.parse(asyncio.run(require_daemon(invocation.settings)).listeners["endpoint"])


def reachable(address: Address) -> Address:
    """The address as this machine reaches it."""
    if address.ip is None or not address.ip.is_unspecified:
        return address
    return Address("::1" if ":" in address.host else "127.0.0.1", address.port)


def _shell_of(environ: Mapping[str, str]) -> str:
    name = environ.get("SHELL", "").rpartition("/")[2]
    return "fish" if name == "fish" else "powershell" if name in ("pwsh", "powershell") else "sh"
