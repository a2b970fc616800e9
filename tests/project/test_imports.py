"""Who may import whom: the contracts hold, and each of them notices when it is broken."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

BREACHES = {
    "daemon and cli stand beside each other on the core": (
        "cli/hfpeer_cli/commands/node/status.py",
        "import hfpeer_daemon.server",
    ),
    "the core points one way": ("hfpeer/upstream/upstreams.py", "import hfpeer.cache.store"),
    "inside the cache too": ("hfpeer/cache/disk/layout.py", "import hfpeer.cache.store"),
    "inside the index too": ("hfpeer/cache/index/database.py", "import hfpeer.cache.index.catalog"),
    "inside the scan too": ("hfpeer/cache/index/scan/seeing.py", "import hfpeer.cache.index.scan.reading"),
    "inside the partial too": ("hfpeer/cache/partial/journal.py", "import hfpeer.cache.partial.files"),
    "inside the cleaning too": ("hfpeer/cache/cleaning/facts.py", "import hfpeer.cache.cleaning.removal"),
    "inside the plan of a cleaning too": (
        "hfpeer/cache/cleaning/planning/plan.py",
        "import hfpeer.cache.cleaning.planning.eviction",
    ),
    "inside the survey too": (
        "hfpeer/cache/cleaning/survey/counting.py",
        "import hfpeer.cache.cleaning.survey.repo_folder",
    ),
    "inside an add too": (
        "hfpeer/node/operations/adding/room.py",
        "import hfpeer.node.operations.adding.adding",
    ),
    "inside the sources too": ("hfpeer/transfer/sources/tiers.py", "import hfpeer.transfer.sources.lan"),
    "inside the listings of hubs too": (
        "hfpeer/upstream/listing/git.py",
        "import hfpeer.upstream.listing.file_lists",
    ),
    "inside the table of peers too": ("hfpeer/peers/table/configured.py", "import hfpeer.peers.table.table"),
    "inside the verification too": ("hfpeer/cache/verify/listings.py", "import hfpeer.cache.verify.checking"),
    "inside the adoption too": ("hfpeer/adoption/listing.py", "import hfpeer.adoption.reading"),
    "inside the operation of a repair too": (
        "hfpeer/node/operations/repair/parts.py",
        "import hfpeer.node.operations.repair.files",
    ),
    "inside the repair too": ("hfpeer/cache/repair/results.py", "import hfpeer.cache.repair.planning"),
    "inside the archive too": ("hfpeer/archive/index.py", "import hfpeer.archive.contents"),
    "inside the push too": ("hfpeer/push/ssh.py", "import hfpeer.push.job"),
    "inside the prepared sets too": ("hfpeer/prepared/layout.py", "import hfpeer.prepared.manifest"),
    "inside the receiver too": (
        "hfpeer/push/receiver/plain_target.py",
        "import hfpeer.push.receiver.main",
    ),
    "inside the transfer too": ("hfpeer/transfer/picker/picker.py", "import hfpeer.transfer.fetch.fetch"),
    "inside the endpoint too": ("hfpeer/endpoint/access/caller.py", "import hfpeer.endpoint.endpoint"),
    "inside the upstreams too": ("hfpeer/upstream/listing/git.py", "import hfpeer.upstream.upstream"),
    "inside the connections to hubs too": (
        "hfpeer/upstream/connection/happy_eyeballs.py",
        "import hfpeer.upstream.connection.clients",
    ),
    "inside ModelScope too": ("hfpeer/modelscope/names.py", "import hfpeer.modelscope.answers"),
    "inside the pushes to ModelScope too": (
        "hfpeer/node/operations/modelscope/results.py",
        "import hfpeer.node.operations.modelscope.pushing",
    ),
    "inside the transfers too": (
        "hfpeer/node/operations/transfers/queue.py",
        "import hfpeer.node.operations.transfers.runs",
    ),
    "inside the fleet too": (
        "hfpeer/node/operations/fleet/request_key.py",
        "import hfpeer.node.operations.fleet.taking",
    ),
    "inside the moves too": (
        "hfpeer/node/operations/moving/local_dir.py",
        "import hfpeer.node.operations.moving.pushing",
    ),
    "inside the ranges of peers too": ("hfpeer/peers/ranges/window.py", "import hfpeer.peers.ranges.ways"),
    "inside the requests to peers too": (
        "hfpeer/peers/asking/message_budget.py",
        "import hfpeer.peers.asking.peer_client",
    ),
    "inside the peers too": ("hfpeer/peers/ranges/range_client.py", "import hfpeer.peers.asking.address_client"),
    "inside the discovery too": (
        "hfpeer/peers/discovery/advertised.py",
        "import hfpeer.peers.discovery.multicast",
    ),
    "inside the conversions too": ("hfpeer/conversion/plan.py", "import hfpeer.conversion.part.part"),
    "inside the operation of a conversion too": (
        "hfpeer/node/operations/conversion/requests.py",
        "import hfpeer.node.operations.conversion.planning",
    ),
    "inside the resolver too": ("hfpeer/resolver/copies.py", "import hfpeer.resolver.commits"),
    "inside the node too": ("hfpeer/node/identity.py", "import hfpeer.node.session"),
    "inside the doctor too": ("hfpeer/node/doctor/findings.py", "import hfpeer.node.doctor.doctor"),
    "inside the operations too": ("hfpeer/node/operations/selection.py", "import hfpeer.node.operations.adding.adding"),
    "inside the command line too": ("cli/hfpeer_cli/grammar/words.py", "import hfpeer_cli.commands.node.status"),
    "inside the language too": ("cli/hfpeer_cli/language/chosen.py", "from hfpeer_cli.language import help_pages"),
    "inside the texts for people too": ("hfpeer/language/cells.py", "import hfpeer.language.catalog"),
    "inside the screen too": ("cli/hfpeer_cli/screen/tables.py", "import hfpeer_cli.screen.bars"),
    "inside the commands too": (
        "cli/hfpeer_cli/commands/shell/environment.py",
        "import hfpeer_cli.commands.node.status",
    ),
    "inside the control too": ("hfpeer/control/codec.py", "import hfpeer.control.client"),
    "inside the fetch too": ("hfpeer/transfer/fetch/job.py", "import hfpeer.transfer.fetch.state"),
    "inside the picker too": ("hfpeer/transfer/picker/bitfield.py", "import hfpeer.transfer.picker.ledger"),
    "inside git too": ("hfpeer/git/lfs.py", "import hfpeer.git.proof"),
    "inside the network code too": ("hfpeer/net/http1.py", "import hfpeer.net.limiter"),
    "inside the page too": ("daemon/hfpeer_daemon/page/viewer.py", "import hfpeer_daemon.page.views"),
    "jinja2 only where pages are made, and where their messages are found": (
        "daemon/hfpeer_daemon/page/routes.py",
        "import jinja2",
    ),
    "inside the daemon too": ("daemon/hfpeer_daemon/http/responses.py", "import hfpeer_daemon.app"),
    "the core knows neither the web framework nor the command line": ("hfpeer/node/node.py", "import click"),
    "the command line knows no web framework": ("cli/hfpeer_cli/output.py", "import fastapi"),
    "pure modules have no input, no output, no clock, no dice": ("hfpeer/net/backoff.py", "import time"),
    "sqlalchemy only in the catalog": ("hfpeer/cache/store.py", "import sqlalchemy"),
    "zeroconf only in the discovery": ("hfpeer/node/node.py", "import zeroconf"),
    "dnspython only where names are looked up": ("hfpeer/node/node.py", "import dns"),
    "redis only in the registry": ("hfpeer/node/node.py", "import redis"),
    "huggingface_hub only where tokens are": ("hfpeer/node/download.py", "import huggingface_hub"),
    "dulwich only where git is spoken": ("hfpeer/manifest.py", "import dulwich"),
    "pyarrow only where Arrow files are read": ("hfpeer/prepared/listing.py", "import pyarrow"),
    "Dask only where its cluster converts": ("hfpeer/node/session.py", "import distributed"),
    "orjson only in conversions": ("hfpeer/prepared/listing.py", "import orjson"),
    "datasets only in the program that the user's Python runs": ("hfpeer/prepared/arrow/shards.py", "import datasets"),
    "httpx only where somebody is asked": ("hfpeer/config/settings.py", "import httpx"),
}
"""Name of a contract -> a file and the line in it that breaks it."""


def lint_imports(root: Path) -> dict[str, bool]:
    """Name of a contract -> whether it is kept in the checkout at `root`."""
    places = os.pathsep.join(str(root / folder) for folder in (".", "cli", "daemon"))
    command = [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()"]
    linted = subprocess.run(
        [*command, "--no-cache", "--no-logo"],
        cwd=root,
        env={**os.environ, "PYTHONPATH": places, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    verdicts = re.findall(r"^(.+) (KEPT|BROKEN)\b", linted.stdout, re.MULTILINE)
    assert verdicts, linted.stdout + linted.stderr
    assert (linted.returncode == 0) == all(verdict == "KEPT" for _, verdict in verdicts)
    return {name: verdict == "KEPT" for name, verdict in verdicts}


@pytest.fixture
def copy(root: Path, tmp_path: Path) -> Path:
    """The sources of a checkout that a test may spoil."""
    for folder in ("hfpeer", "cli", "daemon"):
        shutil.copytree(root / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(root / "pyproject.toml", tmp_path)
    return tmp_path


def test_every_contract_is_kept(root: Path) -> None:
    verdicts = lint_imports(root)
    assert [name for name, is_kept in verdicts.items() if not is_kept] == []
    assert set(verdicts) == set(BREACHES)


def test_every_contract_notices_when_it_is_broken(copy: Path) -> None:
    for path, line in BREACHES.values():
        file = copy / path
        file.write_text(f"{file.read_text()}\n{line}\n")
    assert [name for name, is_kept in lint_imports(copy).items() if is_kept] == []


def test_a_module_without_a_place_in_the_house_is_noticed(copy: Path) -> None:
    (copy / "hfpeer" / "utils.py").touch()
    (copy / "hfpeer" / "cache" / "utils.py").touch()
    broken = {name for name, is_kept in lint_imports(copy).items() if not is_kept}
    assert broken >= {"the core points one way", "inside the cache too"}
