"""The node's status as Prometheus metrics, in a registry of its own for each scrape."""

from __future__ import annotations

from collections.abc import Iterator
from typing import get_args

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

from hfpeer.control.operations import NodeStatus
from hfpeer.control.transfers import RUNNING
from hfpeer.transfer.sources.tiers import SourceKind

CONTENT_TYPE = CONTENT_TYPE_LATEST


def metrics_text(status: NodeStatus) -> bytes:
    """The exposition of one status. Blocks for a moment, but does no input or output."""
    registry = CollectorRegistry()
    registry.register(_StatusCollector(status))
    return generate_latest(registry)


class _StatusCollector(Collector):
    def __init__(self, status: NodeStatus) -> None:
        self._status = status

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily | InfoMetricFamily]:
        status = self._status
        yield InfoMetricFamily(
            "hfpeer_node", "Id and version of this node.", value={"node_id": status.node_id, "version": status.version}
        )
        received = CounterMetricFamily("hfpeer_received_bytes", "Bytes received, by kind of source.", labels=["kind"])
        # Prometheus computes no rate of a series that begins with its first bytes.
        none_yet = dict.fromkeys(get_args(SourceKind), 0)
        for kind, size_bytes in sorted((none_yet | status.received_bytes).items()):
            received.add_metric([kind], size_bytes)
        yield received
        yield CounterMetricFamily("hfpeer_sent_bytes", "Bytes sent to peers.", value=status.sent_bytes)
        peers = GaugeMetricFamily("hfpeer_peers", "Peers, by state.", labels=["state"])
        for state in ("known", "alive", "gone"):
            peers.add_metric([state], sum(peer.state == state for peer in status.peers))
        yield peers
        running = sum(one.state == RUNNING for one in status.transfers)
        yield GaugeMetricFamily("hfpeer_transfers", "Transfers under way.", value=running)
        yield GaugeMetricFamily("hfpeer_cache_bytes", "Size of the cached blobs.", value=status.size_bytes)
        yield GaugeMetricFamily("hfpeer_cache_files", "Cached files.", value=status.files)
        yield GaugeMetricFamily("hfpeer_cache_revisions", "Cached revisions.", value=status.revisions)
        yield GaugeMetricFamily("hfpeer_unverified_files", "Files still to be verified.", value=status.unverified_files)
