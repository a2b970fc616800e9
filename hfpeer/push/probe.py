"""What is at the far end: programs, the folder of the cache, free space, and what an hfpeer there has of the blobs.

A shell that runs one command reads no profile, so the script looks into ~/.local/bin too, and a user may have to name
the cache.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from shlex import quote
from typing import Any

from hfpeer.archive.have import Have
from hfpeer.errors import BrokenCache, HfpeerError, InvalidName, SshFailed
from hfpeer.names import Digest
from hfpeer.push.ssh import Ssh

OLDEST_PYTHON = (3, 8)
PYTHONS = ("python3", *(f"python3.{minor}" for minor in range(14, 7, -1)), "/usr/libexec/platform-python", "python")
PROBE = """
PATH=$PATH:$HOME/.local/bin; export PATH
say() { printf '%s=%s\\n' "$1" "$2"; }
c=CACHE
if [ -z "$c" ]; then c=${HFPEER_CACHE:-${HF_HUB_CACHE:-${HUGGINGFACE_HUB_CACHE:-}}}; fi
if [ -z "$c" ] && [ -n "${HF_HOME:-}" ]; then c=$HF_HOME/hub; fi
if [ -z "$c" ]; then c=${XDG_CACHE_HOME:-$HOME/.cache}/huggingface/hub; fi
case $c in
  '~') c=$HOME ;;
  '~/'*) c=$HOME/${c#'~/'} ;;
  /*) ;;
  *) c=$PWD/$c ;;
esac
h=$(command -v hfpeer)
say system "$(uname -sm 2>/dev/null)"
say hfpeer "$h"
if [ -n "$h" ]; then say have "$("$h" --json-lines have --only - 2>/dev/null | tail -n 1)"; fi
for n in PYTHONS; do
  p=$(command -v "$n") || continue
  v=$("$p" -c 'import sys, hashlib, json, fcntl, zlib; print("%d.%d" % sys.version_info[:2])' 2>/dev/null </dev/null)
  say python "$v $p"
done
for n in tar sha256sum shasum openssl; do say "$n" "$(command -v "$n")"; done
t=${XDG_RUNTIME_DIR:-}
if [ -z "$t" ] || [ ! -d "$t" ] || [ ! -w "$t" ]; then t=${TMPDIR:-/tmp}; fi
say temporary "$t"
say home "$HOME"
say state "${XDG_STATE_HOME:-$HOME/.local/state}"
say user "$(id -un 2>/dev/null)"
say cache "$c"
d=$c
while [ ! -d "$d" ]; do if [ -e "$d" ]; then say taken "$d"; break; fi; d=${d%/*}; if [ -z "$d" ]; then d=/; fi; done
say folder "$d"
if [ -w "$d" ]; then say writable yes; fi
say free "$(df -Pk "$d" 2>/dev/null | tail -n 1)"
"""
_FREE = re.compile(r"\s(\d+)\s+(\d+)\s+(\d+)\s+\d+%")


@dataclass(frozen=True)
class Host:
    """The far end. Empty paths stand for programs that are not there; `free_bytes` is None where nothing tells it.

    `node_cache` is the cache of the hfpeer there, which may be another than `cache`, that of this push. `have` is what
    that hfpeer says of the blobs to push. `summer` is the program that hashes many files.
    """

    name: str
    cache: str
    folder: str
    free_bytes: int | None
    temporary: str
    state: str
    hfpeer: str = ""
    node_cache: str = ""
    python: str = ""
    tar: str = ""
    summer: str = ""
    openssl: str = ""
    have: Have | None = None
    notes: tuple[str, ...] = ()

    def hfpeer_command(self) -> str:
        """The words that run the hfpeer there on the cache of this push. If that is not its own cache, it gets another
        home: a catalog is that of one cache."""
        if self.node_cache == self.cache:
            return quote(self.hfpeer)
        home = f"{self.state}/hfpeer/pushed/{hashlib.sha256(self.cache.encode()).hexdigest()[:12]}"
        return f"env HFPEER_HOME={quote(home)} HFPEER_CACHE={quote(self.cache)} {quote(self.hfpeer)}"


def have_of(document: Mapping[str, Any]) -> Have:
    """What `hfpeer have` says there. Raises KeyError, TypeError, ValueError or InvalidName for anything else."""
    prefixes = {Digest.parse(digest): int(count) for digest, count in document["prefixes"].items()}
    return Have(frozenset(map(Digest.parse, document["digests"])), prefixes)


def as_lines(digests: Iterable[Digest]) -> bytes:
    """The digests as `hfpeer have --only -` reads them."""
    return "".join(f"{digest}\n" for digest in digests).encode()


def probe(ssh: Ssh, cache: str = "", wanted: Iterable[Digest] = ()) -> Host:
    """Asks the far end. `cache` is the folder that the user named; `wanted` are the blobs to push.

    Raises SshFailed, InvalidName, and BrokenCache for a folder that cannot be written.
    """
    if not cache.isprintable():
        raise InvalidName(f"{cache!r} is no folder.", value=cache)
    script = PROBE.replace("=CACHE", f"={quote(cache)}", 1).replace("PYTHONS", " ".join(PYTHONS), 1)
    code, lines = ssh.run(script, as_lines(wanted))
    facts: dict[str, list[str]] = {}
    for line in lines:
        name, separator, value = line.partition("=")
        if separator:
            facts.setdefault(name, []).append(value)
    if "free" not in facts:
        raise SshFailed(
            f"{ssh.host} runs no commands: it ended with code {code}" + (f" and said {lines[-1]!r}." if lines else "."),
            hint="Pushing needs a login that may run `sh`.",
            host=ssh.host,
        )
    return _host(ssh.host, {name: values[0] for name, values in facts.items()}, facts.get("python", ()), bool(cache))


def _free(said: Any) -> int | None:
    return None if said is None else int(said)


def _host(name: str, facts: dict[str, str], pythons: Sequence[str], is_named: bool) -> Host:
    notes: list[str] = []
    hfpeer, node_cache, have, free_there = facts["hfpeer"], "", None, None
    if hfpeer:
        try:
            said = json.loads(facts["have"])["result"]
            node_cache, have, free_there = str(said["cache"]), have_of(said), _free(said["free_bytes"])
        except (ValueError, LookupError, TypeError, AttributeError, InvalidName):
            hfpeer = ""
            notes.append(f"The hfpeer on {name} is too old to take part, or does not start; going on without it.")
    cache = node_cache if hfpeer and not is_named else facts["cache"]
    is_own = node_cache == cache
    free = _FREE.search(facts["free"])
    host = Host(
        name,
        cache,
        facts["folder"],
        free_there if is_own else int(free[3]) * 1024 if free else None,
        facts["temporary"],
        facts["state"],
        hfpeer,
        node_cache,
        next(filter(None, map(_python, pythons)), ""),
        facts["tar"],
        next((facts[program] for program in ("sha256sum", "shasum", "openssl") if facts[program]), ""),
        facts["openssl"],
        have if is_own else None,
        tuple(notes),
    )
    if not is_own and ("taken" in facts or "writable" not in facts):
        raise _not_writable(host, facts.get("taken", ""), facts["user"])
    return host


def _python(found: str) -> str:
    """The path of a Python that can run the receiver; "" for another."""
    version, _, path = found.partition(" ")
    major, _, minor = version.partition(".")
    if not (major.isdigit() and minor.isdigit() and (int(major), int(minor)) >= OLDEST_PYTHON):
        return ""
    return path


def _not_writable(host: Host, taken: str, user: str) -> HfpeerError:
    reason = f"{taken} is no folder" if taken else f"{user or 'the user'} may not write into {host.folder}"
    return BrokenCache(
        f"The cache {host.cache} of {host.name} cannot be used: {reason}.",
        hint=f"Name another folder: `{host.name}:FOLDER`, or `--cache FOLDER`.",
        host=host.name,
        path=host.cache,
    )
