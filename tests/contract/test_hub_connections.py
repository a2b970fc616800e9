"""The way to a hub: proxies, certificates and addresses as they are in companies, and a word for each that is wrong."""

from __future__ import annotations

import datetime
import socket
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from fakes.hub import ZOO_FILES, HubSimulator, faults, put_zoo
from fakes.network.ports import free_ports
from fakes.network.proxies import HttpProxy, SocksProxy, TlsFront
from hfpeer.errors import AccessDenied, HubUnreachable
from hfpeer.names import Commit, FilePath, RepoId, Revision
from hfpeer.net.body import SourceFault
from hfpeer.upstream import reach
from hfpeer.upstream.api import Timeouts
from hfpeer.upstream.connection.clients import Connections
from hfpeer.upstream.connection.happy_eyeballs import first_to_answer, interleaved
from hfpeer.upstream.upstream import Upstream
from hfpeer.upstream.upstreams import Upstreams

ZOO, MAIN = RepoId.parse("acme/zoo"), Revision("main")
CONFIG = bytes(ZOO_FILES["config.json"])  # type: ignore[arg-type]
IMPATIENT = Timeouts(connect_seconds=5.0, silence_seconds=5.0, backoff_seconds=0.01)


@pytest.fixture
def hub() -> Iterator[HubSimulator]:
    with HubSimulator() as simulator:
        put_zoo(simulator.storage)
        yield simulator


@asynccontextmanager
async def upstream(
    url: str, environ: Mapping[str, str], *, proxy: str | None = None, ca: str | None = None
) -> AsyncIterator[Upstream]:
    connections = Connections(environ, proxy=proxy, ca=ca)
    one = Upstream("hub", "origin", url, timeouts=IMPATIENT, connections=connections)
    try:
        yield one
    finally:
        await one.aclose()


async def gives_all(one: Upstream) -> bool:
    """Whether both clients of a hub get through: the one for answers, and the one for ranges of files."""
    commit = await one.resolve(ZOO, MAIN)
    return config_of(one, commit) == CONFIG


def config_of(one: Upstream, commit: Commit) -> bytes:
    body = one.open_range(ZOO, commit, FilePath("config.json"), 0, len(CONFIG), size_bytes=len(CONFIG))
    buffer, filled = bytearray(len(CONFIG)), 0
    while filled < len(CONFIG):
        filled += body.readinto(memoryview(buffer)[filled:])
    body.close()
    return bytes(buffer)


@pytest.mark.parametrize("kind", [HttpProxy, SocksProxy])
async def test_a_hub_is_asked_through_the_proxy_of_the_environment(
    hub: HubSimulator, kind: type[HttpProxy] | type[SocksProxy]
) -> None:
    with kind() as proxy:
        assert isinstance(proxy, (HttpProxy, SocksProxy))
        async with upstream(hub.endpoint, {"all_proxy": proxy.url}) as one:
            assert await gives_all(one)
        assert {target.partition(":")[0] for target in proxy.targets} == {"127.0.0.1"}
        came = len(proxy.targets)
        async with upstream(hub.endpoint, {"all_proxy": proxy.url, "no_proxy": "127.0.0.0/8"}) as one:
            assert await gives_all(one)
        async with upstream(hub.endpoint, {"all_proxy": proxy.url}, proxy="none") as one:
            assert await gives_all(one)
        assert len(proxy.targets) == came
        async with upstream(hub.endpoint, {}, proxy=proxy.url) as one:
            assert await gives_all(one)
        assert len(proxy.targets) > came


async def test_a_proxy_that_is_wrong_is_named_with_its_variable_and_without_its_password(hub: HubSimulator) -> None:
    dead = f"http://user:secret@127.0.0.1:{free_ports(1)[0]}"
    async with upstream(hub.endpoint, {"http_proxy": dead}) as one:
        with pytest.raises(
            HubUnreachable, match=r"the proxy http://127\.0\.0\.1:\d+ of http_proxy does not answer"
        ) as no:
            await Upstreams([one]).resolve(ZOO, MAIN)
        assert "secret" not in str(no.value.to_problem()) and "unset" in str(no.value.hint)
        with pytest.raises(SourceFault, match="of http_proxy does not answer"):
            config_of(one, Commit("a" * 40))
    async with upstream(hub.endpoint, {"http_proxy": "socks4://127.0.0.1:1080"}) as one:
        with pytest.raises(HubUnreachable, match="http_proxy names a proxy of a kind that hfpeer cannot use"):
            await one.resolve(ZOO, MAIN)


class RefusingProxy(HttpProxy):
    """It answers every request itself."""

    def __init__(self, status: str) -> None:
        super().__init__()
        self._status = status

    def _serve(self, client: socket.socket) -> None:
        client.recv(65536)
        client.sendall(f"HTTP/1.1 {self._status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".encode())


@pytest.mark.parametrize("status", ["403 Forbidden", "407 Proxy Authentication Required", "502 Bad Gateway"])
async def test_what_a_proxy_answers_itself_is_not_said_of_the_hub(hub: HubSimulator, status: str) -> None:
    with RefusingProxy(status) as proxy:
        assert isinstance(proxy, RefusingProxy)
        async with upstream(hub.endpoint, {"http_proxy": proxy.url}) as one:
            with pytest.raises(HubUnreachable, match=f"of http_proxy says {status}") as refused:
                await Upstreams([one]).resolve(ZOO, MAIN)
            assert ("USER:PASSWORD" if status.startswith("407") else "unset") in str(refused.value.hint)
            with pytest.raises(SourceFault, match=f"of http_proxy says {status}"):
                config_of(one, Commit("a" * 40))


async def test_a_refusal_of_the_hub_that_comes_through_a_proxy_stays_its_own(hub: HubSimulator) -> None:
    hub.inject(faults.status(403, headers={"X-Error-Message": "Not today"}))
    with HttpProxy() as proxy:
        assert isinstance(proxy, HttpProxy)
        async with upstream(hub.endpoint, {"http_proxy": proxy.url}) as one:
            with pytest.raises(AccessDenied, match="Not today"):
                await one.resolve(ZOO, MAIN)


async def test_a_proxy_that_passes_on_no_answer_is_named(hub: HubSimulator) -> None:
    with mute_listener() as url:
        one = Upstream(
            "hub",
            "origin",
            hub.endpoint,
            timeouts=Timeouts(silence_seconds=0.1),
            connections=Connections({"http_proxy": url}),
        )
        try:
            with pytest.raises(HubUnreachable, match="of http_proxy passes on no answer"):
                await one.resolve(ZOO, MAIN)
        finally:
            await one.aclose()


async def test_a_proxy_that_wants_a_password_says_so() -> None:
    with HttpProxy(password="secret") as proxy, authority().hub() as (secure, place):
        assert isinstance(proxy, HttpProxy)
        environ = {"https_proxy": proxy.url, "SSL_CERT_FILE": str(place)}
        async with upstream(secure, environ) as one:
            with pytest.raises(HubUnreachable, match="407") as refused:
                await one.resolve(ZOO, MAIN)
            assert "USER:PASSWORD" in str(refused.value.hint)
        named = proxy.url.replace("//", "//user:secret@")
        async with upstream(secure, {**environ, "https_proxy": named}) as one:
            assert await gives_all(one)


class authority:
    """A company's own certificate authority."""

    def __init__(self, **options: Any) -> None:
        self._ca = trustme.CA()
        self._options = options

    def hub(self, name: str = "127.0.0.1", folder: Path | None = None) -> Any:
        from contextlib import contextmanager
        from tempfile import TemporaryDirectory

        @contextmanager
        def serving() -> Iterator[tuple[str, Path]]:
            with HubSimulator() as simulator, TemporaryDirectory() as temporary:
                put_zoo(simulator.storage)
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                self._ca.issue_cert(name, **self._options).configure_cert(context)
                place = Path(temporary) / "company.pem"
                self._ca.cert_pem.write_to_path(str(place))
                port = int(simulator.endpoint.rpartition(":")[2])
                with TlsFront(context, "127.0.0.1", port) as front:
                    yield f"https://127.0.0.1:{front.port}", place

        return serving()


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
async def test_a_company_s_authority_is_taken_from_the_variables_of_all_tools(variable: str) -> None:
    with authority().hub() as (url, place):
        async with upstream(url, {variable: str(place)}) as one:
            assert await gives_all(one)


@pytest.mark.parametrize("form", ["der", "folder", "folders"])
async def test_an_authority_is_taken_in_every_form_in_which_it_is_exported(tmp_path: Path, form: str) -> None:
    with authority().hub() as (url, place):
        (tmp_path / "others").mkdir()
        (tmp_path / "others" / "notes.txt").write_text("Our certificates")
        named = tmp_path / "others" / "company.cer"
        named.write_bytes(ssl.PEM_cert_to_DER_cert(place.read_text()))
        environ = {
            "der": {"SSL_CERT_FILE": str(named)},
            "folder": {"REQUESTS_CA_BUNDLE": str(named.parent)},
            "folders": {"SSL_CERT_DIR": f"{named.parent}:{named.parent}"},
        }[form]
        async with upstream(url, environ) as one:
            assert await gives_all(one)


async def test_a_company_s_authority_in_the_system_s_store_is_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    with authority().hub() as (url, place):
        monkeypatch.setattr("hfpeer.upstream.connection.certificates.SYSTEM_BUNDLES", ("/nowhere", str(place)))
        async with upstream(url, {}) as one:
            assert await gives_all(one)
        async with upstream(url, {}, ca=str(place)) as one:
            assert await gives_all(one)


async def test_a_certificate_that_proves_nothing_has_a_hint_that_fits() -> None:
    with authority().hub() as (url, _):
        async with upstream(url, {}) as one:
            with pytest.raises(HubUnreachable, match="no authority known here") as refused:
                await Upstreams([one]).resolve(ZOO, MAIN)
            assert "conf set ca" in str(refused.value.hint)
            with pytest.raises(SourceFault, match="no authority known here"):
                config_of(one, Commit("a" * 40))
    past = datetime.datetime(2020, 1, 1, tzinfo=datetime.timezone.utc)
    with authority(not_after=past).hub() as (url, place):
        async with upstream(url, {"SSL_CERT_FILE": str(place)}) as one:
            with pytest.raises(HubUnreachable, match="out of date") as refused:
                await one.resolve(ZOO, MAIN)
            assert "clock" in str(refused.value.hint)
    with authority().hub("other.test") as (url, place):
        async with upstream(url, {"SSL_CERT_FILE": str(place)}) as one:
            with pytest.raises(HubUnreachable, match="for another name"):
                await one.resolve(ZOO, MAIN)


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"])
async def test_a_variable_that_names_no_certificates_is_named(hub: HubSimulator, tmp_path: Path, variable: str) -> None:
    async with upstream(hub.endpoint, {variable: str(tmp_path / "missing.pem")}) as one:
        with pytest.raises(HubUnreachable, match=rf"{variable} names \S+missing.pem: no such file"):
            await one.resolve(ZOO, MAIN)
        with pytest.raises(SourceFault, match=variable):
            config_of(one, Commit("a" * 40))
    empty = tmp_path / "empty.pem"
    empty.touch()
    async with upstream(hub.endpoint, {"REQUESTS_CA_BUNDLE": str(empty)}) as one:
        with pytest.raises(HubUnreachable, match="which holds no certificate"):
            await one.resolve(ZOO, MAIN)
    async with upstream(hub.endpoint, {"SSL_CERT_DIR": str(tmp_path)}) as one:
        with pytest.raises(HubUnreachable, match="which holds no certificate"):
            await one.resolve(ZOO, MAIN)


async def test_addresses_that_swallow_packets_cost_a_moment(hub: HubSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """One listener whose queue is full accepts nobody, as an address behind a firewall; the good one comes last."""
    port = int(hub.endpoint.rpartition(":")[2])
    really = socket.getaddrinfo
    with full_listeners(port, count=6) as silent:

        def look_up(host: Any, port: Any, *arguments: Any, **options: Any) -> Any:
            if host in ("hub.test", b"hub.test"):
                each = [*silent, "127.0.0.1"]
                return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in each]
            return really(host, port, *arguments, **options)

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        async with upstream(f"http://hub.test:{port}", {}) as one:
            assert await gives_all(one)  # with 5 s for each address it would end in HubUnreachable


class full_listeners:
    """Sockets at 127.9.0.N with a full queue: a connection to them is never made."""

    def __init__(self, port: int, count: int) -> None:
        self._addresses = [(f"127.9.0.{number}", port) for number in range(1, count + 1)]
        self._opened: list[socket.socket] = []

    def __enter__(self) -> list[str]:
        for address in self._addresses:
            listener = socket.socket()
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(0)
            self._opened.append(listener)
            for _ in range(2):
                waiting = socket.socket()
                waiting.setblocking(False)
                waiting.connect_ex(address)
                self._opened.append(waiting)
        return [ip for ip, _ in self._addresses]

    def __exit__(self, *_: object) -> None:
        for each in self._opened:
            each.close()


PATIENT = Timeouts(connect_seconds=60.0, silence_seconds=60.0)
"""A hub that nothing but its time limits ends would hang the test until its own."""


async def test_hubs_that_accept_no_connection_are_passed_over_and_remembered(hub: HubSimulator) -> None:
    port = int(hub.endpoint.rpartition(":")[2])
    with full_listeners(port, count=2) as silent:
        dead = [Upstream(ip, "mirror", f"http://{ip}:{port}", timeouts=PATIENT) for ip in silent]
        good = Upstream("hub", "origin", hub.endpoint, timeouts=PATIENT)
        try:
            commit, name = await Upstreams([dead[0], good]).resolve(ZOO, MAIN)
            assert name == "hub"
            alone = Upstreams(dead)
            with pytest.raises(HubUnreachable, match="did not accept a connection") as refused:
                await alone.resolve(ZOO, MAIN)
            assert "offline true" in str(refused.value.hint)
            assert alone.silent == tuple(dead)
            before = len(hub.requests)
            assert await Upstreams([*dead, good]).manifest(ZOO, commit)
            assert len(hub.requests) > before
        finally:
            for each in (*dead, good):
                await each.aclose()


@contextmanager
def mute_listener() -> Iterator[str]:
    """The URL of a hub that takes every connection and answers nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


async def test_hubs_that_take_connections_and_answer_nothing_are_passed_over(
    hub: HubSimulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reach, "TICK_SECONDS", 0.05)
    with mute_listener() as url:
        mute = Upstream("mute", "mirror", url, timeouts=PATIENT)
        good = Upstream("hub", "origin", hub.endpoint, timeouts=PATIENT)
        try:
            both = Upstreams([mute, good])
            commit, name = await both.resolve(ZOO, MAIN)
            assert name == "hub"
            await both.manifest(ZOO, commit)
            assert both.giving == (good,)
            with pytest.raises(HubUnreachable, match="accepted a connection and sent no answer"):
                await Upstreams([mute]).resolve(ZOO, MAIN)
            with pytest.raises(HubUnreachable, match="sent no answer"):
                await Upstreams([mute]).visibility(ZOO, commit, asks_mirrors=True)
        finally:
            await mute.aclose()
            await good.aclose()


async def test_a_mute_hub_that_used_up_its_time_gets_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "TICK_SECONDS", 0.02)
    with mute_listener() as url:
        mute = Upstream("mute", "origin", url, timeouts=Timeouts(silence_seconds=0.3))
        last_resort = Upstreams([mute]).as_last_resort()
        try:
            with pytest.raises(HubUnreachable, match="is silent"):
                await last_resort.resolve(ZOO, MAIN)
            with pytest.raises(HubUnreachable, match="sent no answer"):
                await last_resort.resolve(ZOO, MAIN)
        finally:
            await mute.aclose()


async def test_the_last_resort_is_asked_although_it_was_silent(hub: HubSimulator) -> None:
    one = Upstream("hub", "origin", hub.endpoint, timeouts=PATIENT)
    try:
        one.reach.note_silence()
        asked = Upstreams([one])
        with pytest.raises(HubUnreachable):
            await asked.resolve(ZOO, MAIN)
        assert hub.requests == []
        assert (await asked.as_last_resort().resolve(ZOO, MAIN))[1] == "hub"
        assert asked.silent == ()
    finally:
        await one.aclose()


async def test_a_hub_that_took_the_connection_gets_its_time(hub: HubSimulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two ticks without an answer are no silence: the second hub is never asked."""
    hub.inject(faults.delay(0.7), path="/api/*", times=1)
    with HubSimulator() as other:
        put_zoo(other.storage)
        slow, next_one = Upstream("slow", "mirror", hub.endpoint), Upstream("next", "origin", other.endpoint)
        try:
            assert (await Upstreams([slow, next_one]).resolve(ZOO, MAIN))[1] == "slow"
            assert other.requests == []
        finally:
            await slow.aclose()
            await next_one.aclose()


def test_families_take_turns_and_the_first_that_answers_wins(hub: HubSimulator) -> None:
    from ipaddress import ip_address as ip

    given = [ip("::1"), ip("::2"), ip("10.0.0.1"), ip("10.0.0.2"), ip("10.0.0.3")]
    assert interleaved(given) == [ip("::1"), ip("10.0.0.1"), ip("::2"), ip("10.0.0.2"), ip("10.0.0.3")]
    port = int(hub.endpoint.rpartition(":")[2])
    with full_listeners(port, count=1) as silent:
        assert first_to_answer([ip(silent[0]), ip("127.0.0.1")], port, 5.0) == ip("127.0.0.1")
        assert first_to_answer([ip(silent[0])], port, 0.05) is None
    assert first_to_answer([ip("127.9.0.1"), ip("127.9.0.2")], port, 5.0) is None
