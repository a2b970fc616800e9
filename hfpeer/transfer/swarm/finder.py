"""Finds the sources of blobs: files of this machine, the upstreams, and the peers where they may be asked."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hfpeer.transfer.credit import Credits
from hfpeer.transfer.sources.lan import Lan
from hfpeer.transfer.sources.local_files import FindLocal
from hfpeer.transfer.sources.site_copies import FindSites, no_sites
from hfpeer.transfer.sources.sources import PeerSource, UpstreamSource, WantedBlob
from hfpeer.transfer.swarm.follower import FollowedFetch, PeerFollower
from hfpeer.upstream.upstream import Upstream


class PeerFinder:
    """The sources that one add or one caller may ask."""

    def __init__(
        self,
        lan: Lan | None,
        upstreams: Iterable[Upstream],
        local_files: FindLocal = lambda blob: (),
        sites: FindSites = no_sites,
    ) -> None:
        """`upstreams` are asked in this order. Without `lan` no peer is asked. `local_files` go before all others.
        `sites` are copies at ModelScope."""
        self._lan = lan
        self.local_files = local_files
        self.sites = sites
        self.upstreams = tuple(UpstreamSource(upstream) for upstream in upstreams)

    @property
    def asks_peers(self) -> bool:
        return self._lan is not None

    def peers_for(self, blob: WantedBlob) -> Sequence[PeerSource]:
        """The peers that can be asked for a blob now, the likeliest first."""
        return self._lan.source_peers(blob) if self._lan is not None else ()

    def follow(self, fetch: FollowedFetch, credits: Credits | None = None) -> PeerFollower | None:
        """Starts to follow the peers for a fetch; the caller stops the follower. None where no peer is asked.

        `credits` are this node's accounts of the sources.
        """
        return PeerFollower(self._lan, fetch, credits) if self._lan is not None else None
