"""The page at the endpoint: its numbers, who sees what, what it never does, and how it stays up to date."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from html import unescape
from pathlib import Path

import httpx
import pytest

from fakes.doors import open_door
from fakes.lan_picture import PictureNode
from fakes.other_user import run_as_nobody, why_not
from hfpeer.budgets import MAX_OPEN_PAGES
from hfpeer.config.settings import Settings, read_settings
from hfpeer.control.ports import listen_tcp
from hfpeer.language.amounts import human_size
from hfpeer.net.address import Address
from hfpeer_daemon.app import endpoint_app
from hfpeer_daemon.http.door import INERT
from hfpeer_daemon.http.listeners import bound_address
from hfpeer_daemon.page.routes import page_routes
from hfpeer_daemon.page.views import Views

BROWSER = {"Accept": "text/html,application/xhtml+xml", "Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}
VISITOR = {"X-Forwarded-For": "192.168.1.77"}
"""Of a browser behind a proxy: it is not the user of the daemon, although the proxy may be."""
VIEWS = ("/", "/-/lan", "/-/repos", "/-/history", "/-/settings")
OTHER_USER = why_not()
MARKUP = "acme/<script>alert(1)</script>"
REPO = f"/-/repo?name=models/Qwen/base-7B&commit={1:040x}"


@pytest.fixture
def node() -> PictureNode:
    return PictureNode(peers=3, repos=12)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return read_settings({"HOME": str(tmp_path), "HFPEER_HOME": str(tmp_path / "home")})


class Page:
    """The page of a node behind a real door; `stop` ends its streams."""

    def __init__(self, client: httpx.AsyncClient, stop: asyncio.Event) -> None:
        self._client = client
        self.url = str(client.base_url).rstrip("/")
        self.stop = stop

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self._client.get(path, headers={**BROWSER, **{k.replace("_", "-"): v for k, v in headers.items()}})

    async def text(self, path: str, **headers: str) -> str:
        """What a person reads: without markup and scripts."""
        said = await self.get(path, **headers)
        assert said.status_code == 200, said.text
        return " ".join(unescape(re.sub(r"<[^>]*>", " ", said.text)).split())

    @asynccontextmanager
    async def events(self, path: str) -> AsyncIterator[AsyncIterator[str]]:
        """The lines with data of a stream."""
        headers = {"Accept": "text/event-stream", "Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors"}
        async with self._client.stream("GET", path, headers=headers) as said:
            assert said.status_code == 200 and said.headers["content-type"].startswith("text/event-stream")
            yield (line async for line in said.aiter_lines() if line.startswith("data:"))


@asynccontextmanager
async def opened(node: PictureNode, settings: Settings) -> AsyncIterator[Page]:
    listener = listen_tcp(Address("127.0.0.1", 0), "endpoint.listen")
    address, stop = bound_address(listener), asyncio.Event()
    app = endpoint_app(node, address, page=page_routes(Views(node, settings), stop))
    async with open_door(lambda _: app, listener=listener, headers=INERT):
        limits = httpx.Limits(max_connections=100)
        async with httpx.AsyncClient(base_url=address.url, timeout=30, limits=limits) as client:
            yield Page(client, stop)
            stop.set()


@pytest.fixture
async def page(node: PictureNode, settings: Settings) -> AsyncIterator[Page]:
    async with opened(node, settings) as page:
        yield page


async def test_a_browser_gets_the_page_and_a_tool_the_version(page: Page) -> None:
    assert (await page.get("/")).headers["content-type"].startswith("text/html")
    for accept in ("*/*", "", "application/json"):
        said = await page.get("/", Accept=accept)
        assert said.text.startswith("hfpeer ") and said.headers["content-type"].startswith("text/plain")


@pytest.mark.parametrize("path", [*VIEWS, REPO, "/-/static/page.css", "/-/static/page.js", "/-/nothing"])
async def test_a_browser_may_do_nothing_with_it_but_show_it(page: Page, path: str) -> None:
    said = await page.get(path)
    rules = said.headers.get_list("content-security-policy")
    assert len(rules) == 1, "the door's rule, which forbids styles, is replaced"
    assert rules[0].startswith("default-src 'none';") and "unsafe" not in rules[0]
    assert "frame-ancestors 'none'" in rules[0] and "base-uri 'none'" in rules[0] and "form-action 'none'" in rules[0]
    assert said.headers.get_list("x-content-type-options") == ["nosniff"]
    assert said.headers["x-frame-options"] == "DENY"
    assert said.headers["cross-origin-resource-policy"] == "same-origin"
    assert not re.search(r"<script>|<style|\sstyle=|\son\w+=|(src|href)=.https?:|@import|url\(", said.text)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_no_request_changes_anything(page: Page, node: PictureNode, method: str) -> None:
    for path in (*VIEWS[1:], REPO, "/-/live/node", "/-/static/page.js", "/-/anything"):
        said = await page._client.request(method, path, content=b"{}")
        assert said.status_code == 405, path
    assert {name for name, _ in node.calls} <= {"list_revisions", "history", "search", "why"}


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors", "Origin": "http://evil.example"},
        {"Host": "evil.example"},
    ],
)
async def test_a_foreign_page_reads_none_of_it(page: Page, headers: dict[str, str]) -> None:
    for path in ("/", "/-/lan", "/-/live/node", "/-/static/page.js"):
        assert (await page._client.get(path, headers={"Accept": "text/html", **headers})).status_code == 403


async def test_the_numbers_are_those_of_the_status(page: Page, node: PictureNode) -> None:
    status, html = await node.status(), (await page.get("/")).text
    for number in (status.size_bytes, status.received_bytes["peer"], status.sent_bytes):
        assert f'<data value="{number}">' in html
    for one in status.transfers:
        assert f'<data value="{one.present_bytes}">' in html and one.repo in html
        assert all(source in html for source in one.bytes_by_source)
    assert f"now: {human_size(status.sent_bytes_per_second)}/s" in html
    assert human_size(status.free_bytes or 0) in html and human_size(status.disk_bytes or 0) in html
    assert f"{status.revisions} revisions" in html and f"{status.files:,} files" in html


async def test_the_matrix_says_which_machine_has_which_repo(page: Page, node: PictureNode) -> None:
    html = (await page.get("/-/lan")).text
    heads = re.findall(r'class="machine" title="([^"]*)"', html)
    assert heads == ["cygnus", *(peer.name for peer in node.peers.values())]
    rows = dict(re.findall(r'<tr data-name="([^"]*)">(.*?)</tr>', html))
    assert len(rows) == len(node.cached)
    for peer in node.peers.values():
        for name, row in rows.items():
            cells = re.findall(r"<td(?: class=\"(all|part)\")?>(?:<i>|</td>)", row)
            held = [one for one in node.found if one.node_id == peer.node_id and name.endswith(one.repo)]
            wanted = "" if not held else "all" if held[0].is_complete else "part"
            assert cells[heads.index(peer.name)] == wanted, (peer.name, name)


async def test_the_history_adds_up(page: Page, node: PictureNode) -> None:
    html = (await page.get("/-/history")).text
    by_repo: dict[str, int] = {}
    for entry in node.entries:
        by_repo[entry.repo] = by_repo.get(entry.repo, 0) + entry.saved_bytes
    for repo, saved in by_repo.items():
        assert re.search(f'<tr data-name="{re.escape(repo)}">.*?<data value="{saved}">', html), repo
    numbers = html.partition("<details>")[2].partition("</details>")[0]
    by_day = [int(first) for first in re.findall(r"</th><td class=\"n\"><data value=\"(\d+)\">", numbers)]
    assert sum(by_day) == sum(entry.saved_bytes for entry in node.entries)


async def test_a_file_tells_its_story(page: Page) -> None:
    listing = await page.text(REPO)
    assert "model.safetensors" in listing and "andromeda 2.0 GB" in listing
    story = await page.text(f"{REPO}&file=model.safetensors")
    for part in ("andromeda", "192.168.1.20:9437", "LAN", "huggingface.co", "WAN", "gave wrong bytes", "a" * 64):
        assert part in story, part


async def test_the_settings_are_those_of_conf_ls(page: Page) -> None:
    text = await page.text("/-/settings")
    for key in ("endpoint.listen", "upstreams", "cache.max_size", "hfpeer conf set KEY VALUE"):
        assert key in text, key


async def test_a_visitor_sees_what_peers_may_see_and_nothing_private(page: Page, node: PictureNode) -> None:
    private = [one for one in node.cached if not one.is_shared]
    assert private
    mine = "".join([await page.text(path) for path in ("/", *VIEWS[1:4])])
    theirs = "".join([(await page.get(path, **VISITOR)).text for path in (*VIEWS, f"{REPO}&file=config.json")])
    for one in private:
        assert one.repo in mine and one.repo not in theirs
        said = await page.get(f"/-/repo?name={one.type}s/{one.repo}&commit={one.commit}", **VISITOR)
        assert said.status_code == 404 and one.repo in said.text, "as for a repo that is not there"
    for secret in ("/home/anna", "anna", "upstreams", "https://hf-mirror.com", "eth0", "limit", "budget"):
        assert secret not in theirs, secret
    assert (await page.get("/-/settings", **VISITOR)).status_code == 403


@pytest.mark.skipif(OTHER_USER is not None, reason=OTHER_USER or "")
async def test_another_user_of_this_machine_is_a_visitor(page: Page, node: PictureNode) -> None:
    code = "import sys, urllib.request as r; a = r.Request(sys.argv[1], headers={'Accept': 'text/html'})"
    read = f"{code}; sys.stdout.buffer.write(r.build_opener(r.ProxyHandler({{}})).open(a).read())"
    private = next(one.repo for one in node.cached if not one.is_shared)
    theirs = await asyncio.to_thread(run_as_nobody, read, f"{page.url}/-/repos")
    assert "</table>" in theirs and private not in theirs and private in await page.text("/-/repos")


async def test_everything_is_escaped(settings: Settings) -> None:
    node = PictureNode(peers=2, repos=2)
    bad = "<img src=x onerror=alert(1)>\u202e\x1b[2J\"'&"
    node.peers = {
        key: replace(peer, name=bad, note=bad, state="gone", found_by=bad) for key, peer in node.peers.items()
    }
    node.entries = [replace(entry, repo=MARKUP, revision=bad, commit="") for entry in node.entries]
    node.provenance = [replace(one, path=bad) for one in node.provenance]
    transfers = tuple(replace(one, repo=MARKUP, path=bad, bytes_by_source={bad: 5}) for one in node.picture.transfers)
    node.picture = replace(node.picture, name=bad, notes=(bad,), transfers=transfers, upstreams={bad: bad})
    async with opened(node, settings) as page:
        for path in (*VIEWS, REPO, f"{REPO}&file=x", "/-/repo?name=models/%3Cscript%3E&commit=x", "/-/<script>"):
            for language in ("en", "zh-CN"):
                html = (await page.get(path, Accept_Language=language)).text
                assert "<img src=x" not in html and "<script>" not in html, path
                assert "\u202e" not in html and "\x1b" not in html, path


async def test_the_language_is_that_of_the_browser_until_a_link_chooses(page: Page) -> None:
    chinese = await page.get("/", Accept_Language="de,zh-CN;q=0.9,en;q=0.1")
    assert '<html lang="zh-CN">' in chinese.text and "本节点" in chinese.text
    assert '<html lang="en">' in (await page.get("/", Accept_Language="zh-TW,en")).text
    chosen = await page.get("/-/lan?lang=zh-CN", Accept_Language="en")
    assert "局域网" in chosen.text and "SameSite=strict" in chosen.headers["set-cookie"]
    assert '<html lang="zh-CN">' in (await page.get("/", Accept_Language="en", Cookie="hfpeer_lang=zh_CN")).text


async def test_a_page_that_does_not_exist_says_so(page: Page) -> None:
    for path in ("/-/nothing", "/-/repo?name=models/a/b&commit=" + "0" * 40):
        assert (await page.get(path)).status_code == 404
    assert (await page.get("/-/repo?name=..&commit=..")).status_code == 400
    assert (await page.get("/-/static/../routes.py")).status_code == 404
    assert (await page.get("/-/live/nothing")).status_code == 404


async def test_changes_come_by_themselves_and_nothing_else_comes(page: Page, node: PictureNode) -> None:
    html = (await page.get("/")).text
    found = re.search(r'data-live="([^"]*)"', html)
    assert found is not None
    async with page.events(unescape(found[1])) as events:
        node.picture = replace(node.picture, sent_bytes=123_456_789)
        first = await asyncio.wait_for(anext(events), 30)
        assert "figures" in first and "123456789" in first, "the fragments that are the same do not come"
        node.picture = replace(node.picture, transfers=())
        second = await asyncio.wait_for(anext(events), 30)
        assert "running" in second or "figures" in second


async def test_the_streams_end_when_the_daemon_stops(page: Page) -> None:
    async with page.events("/-/live/lan") as events:
        await asyncio.wait_for(anext(events), 30)
        page.stop.set()
        assert [line async for line in events if "name" not in line] == []


async def test_many_open_pages_are_bounded_and_the_owner_keeps_a_place(page: Page) -> None:
    kept = []  # a generator that is collected closes its response

    async def follow(headers: dict[str, str]) -> httpx.Response:
        request = page._client.build_request("GET", "/-/live/history", headers={**BROWSER, **headers})
        said = await page._client.send(request, stream=True)
        if said.status_code == 200:
            kept.append(said.aiter_lines())
            await anext(kept[-1])
        return said

    answers = [await follow(VISITOR) for _ in range(MAX_OPEN_PAGES + 1)]
    mine = await follow({})
    assert [said.status_code for said in answers] == [200] * MAX_OPEN_PAGES + [503]
    assert answers[-1].headers["retry-after"] and mine.status_code == 200
    for said in (*answers, mine):
        await said.aclose()


async def test_many_open_pages_look_at_the_node_once(page: Page, node: PictureNode) -> None:
    node.calls.clear()
    await asyncio.gather(*(page.get("/-/history") for _ in range(20)))
    assert [name for name, _ in node.calls].count("history") <= 3
