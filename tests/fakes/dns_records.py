"""A DNS server of this test run on loopback, over UDP and TCP, that may misbehave. It needs no root.

async with DnsRecords({("peers.lab", "A"): ["10.0.0.1"]}) as dns:
    monkeypatch.setattr(dns_names, "_make_resolver", dns.make_resolver)
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping, Sequence

import dns.asyncresolver
import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from fakes.network.ports import listen

UDP_BYTES = 512


class DnsRecords(asyncio.DatagramProtocol):
    """`records` by name and kind; a name with none at all does not exist. `fault` answers all with that, or nothing."""

    def __init__(self, records: Mapping[tuple[str, str], Sequence[str]], ttl_seconds: int = 30) -> None:
        self.records = dict(records)
        self.ttl_seconds = ttl_seconds
        self.fault: dns.rcode.Rcode | None = None
        self.faulty_kinds: set[str] = set()
        self.asked: list[tuple[str, str]] = []

    async def __aenter__(self) -> DnsRecords:
        loop = asyncio.get_running_loop()
        tcp = listen("127.0.0.1")
        self.port = int(tcp.getsockname()[1])
        self._server = await asyncio.start_server(self._serve, sock=tcp)
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", self.port))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._transport.close()
        self._server.close()
        await self._server.wait_closed()

    def make_resolver(self) -> dns.asyncresolver.Resolver:
        resolver = dns.asyncresolver.Resolver(configure=False)
        resolver.nameservers, resolver.port, resolver.timeout = ["127.0.0.1"], self.port, 0.5
        return resolver

    def datagram_received(self, data: bytes, sender: tuple[str, int]) -> None:
        answer = self._answer(data)
        wire = answer.to_wire()
        if len(wire) > UDP_BYTES:
            answer.answer.clear()
            answer.flags |= dns.flags.TC
            wire = answer.to_wire()
        self._transport.sendto(wire, sender)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        (length,) = struct.unpack("!H", await reader.readexactly(2))
        wire = self._answer(await reader.readexactly(length)).to_wire()
        writer.write(struct.pack("!H", len(wire)) + wire)
        writer.close()

    def _answer(self, data: bytes) -> dns.message.Message:
        question = dns.message.from_wire(data)
        answer = dns.message.make_response(question)
        asked = question.question[0]
        name, kind = asked.name.to_text(omit_final_dot=True), dns.rdatatype.to_text(asked.rdtype)
        self.asked.append((name, kind))
        if self.fault is not None and (not self.faulty_kinds or kind in self.faulty_kinds):
            answer.set_rcode(self.fault)
        elif not any(known == name for known, _ in self.records):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif (name, kind) in self.records:
            answer.answer.append(
                dns.rrset.from_text_list(asked.name, self.ttl_seconds, "IN", kind, self.records[name, kind])
            )
        return answer
