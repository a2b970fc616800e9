"""Archives while daemons run: an export and an import work on the cache beside the daemon, which then serves it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fakes.machine import Machine, Machines
from fakes.waiting import wait_until


def test_an_import_beside_a_daemon_is_served_by_it(
    machines: Machines, pegasus: Machine, cygnus: Machine, put: Callable[..., str], tmp_path: Path
) -> None:
    commit = put("acme/carried", 2_000_000)
    pegasus.do("model", "add", "-r", "acme/carried")
    made = pegasus.do("export", "acme/carried", "-o", str(tmp_path / "carried.tar"))
    assert made["revisions"][0]["visibility"] == "public"
    alone = machines.make("alone", upstreams="")
    alone.start()
    (report,) = alone.do("import", str(tmp_path / "carried.tar"))
    (revision,) = report["revisions"]
    assert (revision["commit"], revision["is_shared"], revision["refs"]) == (commit, True, ["main"])
    (listed,) = alone.found("model", "ls", "-r", "acme/carried")
    assert listed["is_complete"] and listed["is_proved"] and listed["is_shared"]
    pegasus.do("model", "rm", "-r", "acme/carried", "--force")
    cygnus.do("peer", "add", alone.address)
    wait_until(lambda: cygnus.found("model", "search", "-r", "acme/carried"), "the search finds it")
    added = cygnus.do("model", "add", "-r", "acme/carried", "-v", commit)
    assert added["bytes_by_source"] == {"alone": listed["size_bytes"]}
