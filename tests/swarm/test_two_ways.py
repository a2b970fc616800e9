"""A peer on two links: bytes come over the one that proves faster, and go on when that one fails."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.machine import Machine, Machines
from fakes.network.lan import why_not
from fakes.network.two_links import FAST, SLOW, TwoLinks
from fakes.waiting import wait_until
from hfpeer.control.results import PeerStatus

pytestmark = [pytest.mark.root, pytest.mark.skipif(bool(why_not("tc")), reason=f"no links here: {why_not('tc')}")]
LARGE_BYTES, SIZE_BYTES = 40_000_000, 8_000_000
SECONDS = 20.0
"""Much less than the 40 s that the slow link takes for a large file, much more than all else."""


@pytest.fixture
def links() -> Iterator[TwoLinks]:
    with TwoLinks() as links:
        yield links


class Pair:
    """A machine that holds a model, and one that has found it."""

    def __init__(
        self,
        machines: Machines,
        links: TwoLinks,
        folder: Path,
        name: str,
        size_bytes: int = SIZE_BYTES,
        mdns: bool = True,
    ) -> None:
        """Without multicast the one that seeks knows the address on the slow link only."""
        self.size_bytes = size_bytes
        named = () if mdns else (f"{SLOW}.1",)
        self.holder, self.seeker = (
            machines.make(f"{name}-{role}", mdns=mdns, host=host, peers=peers)
            for role, host, peers in zip(("holder", "seeker"), links.hosts, ((), named), strict=True)
        )
        self.holder.start()
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(os.urandom(size_bytes))
        self.commit = self.holder.do("model", "publish", str(folder), "--as", f"team/{name}")["commit"]
        self.repo = f"team/{name}"
        self.seeker.start()
        self.seeker.wait_until_it_knows(self.holder)

    def wait_until_both_links_are_known(self) -> list[PeerStatus]:
        """Until the holder's announcement came: what it asked came over one link."""
        wait_until(lambda: [peer.origin for peer in self.seeker.peers()] == ["mdns"], "both addresses are known")
        return self.seeker.peers()

    def add(self) -> float:
        """The seconds that an add takes."""
        began_at = time.monotonic()
        added = self.seeker.do("model", "add", "-r", self.repo, "-v", self.commit)
        assert added["bytes_by_kind"] == {"peer": self.size_bytes}
        return time.monotonic() - began_at


def prefer(machine: Machine, subnet: str) -> None:
    """Waits until the machine uses the holder's address in a subnet."""
    wait_until(lambda: any(peer.address.startswith(subnet) for peer in machine.peers()), f"{subnet} is used")


def test_the_faster_of_two_links_brings_nearly_everything(machines: Machines, links: TwoLinks, tmp_path: Path) -> None:
    pair = Pair(machines, links, tmp_path / "model", "faster", LARGE_BYTES)
    assert pair.add() < SECONDS
    assert links.sent_bytes("slow") < LARGE_BYTES / 4
    prefer(pair.seeker, FAST)


def test_the_faster_link_is_found_although_only_the_slow_one_is_named(
    machines: Machines, links: TwoLinks, tmp_path: Path
) -> None:
    pair = Pair(machines, links, tmp_path / "model", "named", LARGE_BYTES, mdns=False)
    assert pair.add() < SECONDS
    assert links.sent_bytes("slow") < LARGE_BYTES / 4


@pytest.mark.parametrize("how", ["cut", "swallow"])
def test_an_add_goes_on_over_the_slow_link_when_the_fast_one_fails(
    machines: Machines, links: TwoLinks, tmp_path: Path, how: str
) -> None:
    pair = Pair(machines, links, tmp_path / "model", f"fails-{how}")
    pair.wait_until_both_links_are_known()
    failing = threading.Timer(0.1, lambda: getattr(links, how)("fast"))
    failing.start()
    pair.add()
    failing.join()


def test_an_add_finds_what_a_peer_has_over_the_link_that_is_left(
    machines: Machines, links: TwoLinks, tmp_path: Path
) -> None:
    pair = Pair(machines, links, tmp_path / "model", "left", 2_000_000)
    (peer,) = pair.wait_until_both_links_are_known()
    in_use, other = ("slow", "fast") if peer.address.startswith(SLOW) else ("fast", "slow")
    links.cut(in_use)
    pair.add()
    assert links.sent_bytes(other) > pair.size_bytes
