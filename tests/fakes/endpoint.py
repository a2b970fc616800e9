"""A hub and a machine whose endpoint stands before it, and a client that asks the endpoint without any kindness."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from fakes.hub import HubSimulator
from fakes.machine import Machine, Machines

SECONDS = 30.0


@dataclass(frozen=True)
class Said:
    """An answer. `is_whole` is False when the connection broke before the announced end."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    is_whole: bool = True

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str | None:
        return self.headers.get("x-error-code")


@dataclass
class Endpoint:
    """The endpoint of a machine, asked over a fresh connection each time."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)

    def ask(self, method: str, target: str, body: bytes | None = None, **headers: str) -> Said:
        """One request; `target` goes out as it is. Header names have `_` for `-`."""
        with self.open(method, target, body, **headers) as answer:
            chunks, is_whole = [], True
            try:
                while chunk := answer.read1(1 << 20):
                    chunks.append(chunk)
            except (http.client.IncompleteRead, ConnectionError):
                is_whole = False
            content = b"".join(chunks)
            announced = answer.headers.get("content-length")
            if method != "HEAD" and announced is not None and answer.status != 304:
                is_whole = is_whole and len(content) == int(announced)
            names = {name.lower(): value for name, value in answer.headers.items()}
            return Said(answer.status, names, content, is_whole)

    def get(self, target: str, **headers: str) -> Said:
        return self.ask("GET", target, None, **headers)

    def head(self, target: str, **headers: str) -> Said:
        return self.ask("HEAD", target, None, **headers)

    @contextmanager
    def open(
        self, method: str, target: str, body: bytes | None = None, **headers: str
    ) -> Iterator[http.client.HTTPResponse]:
        """An answer whose body is still to be read; leaving the block goes away."""
        connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=SECONDS)
        try:
            given = {"User-Agent": "test/1", **self.headers, **headers}
            connection.putrequest(method, target, skip_host="Host" in given, skip_accept_encoding=True)
            if body is not None:
                given["Content-Length"] = str(len(body))
            for name, value in given.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders(body)
            with connection.getresponse() as answer:
                yield answer
        finally:
            connection.close()

    def like(self, **headers: str) -> Endpoint:
        """The same asked with more headers."""
        return Endpoint(self.url, {**self.headers, **headers})


@dataclass(frozen=True)
class Stage:
    """A hub, a machine in front of it, and the way to its endpoint."""

    hub: HubSimulator
    machine: Machine
    endpoint: Endpoint
    folder: Path

    def requests(self) -> list[str]:
        """The requests that the hub got since the last call, as `METHOD path`, finished or not."""
        self.hub.wait_until_quiet()
        asked = [f"{record.method} {record.path}" for record in self.hub.requests]
        self.hub.clear()
        return asked

    def tool(self, cache: str = "client", **more: str) -> dict[str, Any]:
        """The environment of a Hugging Face tool that asks this endpoint, with a cache of its own."""
        folder = self.folder / cache
        return {
            "HF_ENDPOINT": self.endpoint.url,
            "HF_HOME": str(folder),
            "HF_HUB_CACHE": str(folder / "hub"),
            "HF_HUB_DISABLE_UPDATE_CHECK": "1",
            **more,
        }


@contextmanager
def staged(folder: Path, machines: Machines, name: str = "door", **options: Any) -> Iterator[Stage]:
    """A stage with an empty hub; `options` go to `Machines.make`."""
    with HubSimulator() as hub:
        machine = machines.make(name, **{"upstreams": f"origin={hub.endpoint}", **options})
        yield Stage(hub, machine, endpoint_of(machine), folder)


def endpoint_of(machine: Machine) -> Endpoint:
    """Starts the machine's daemon; its endpoint."""
    machine.start()
    return Endpoint(f"http://{machine.status().listeners['endpoint']}")
