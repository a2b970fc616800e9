"""The page in a real browser: both themes and languages, a phone, the keyboard, rules for screen readers, changes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from fakes.browser import Tab, open_browser, why_no_browser
from fakes.doors import open_door
from fakes.lan_picture import PictureNode
from hfpeer.config.settings import read_settings
from hfpeer.control.ports import listen_tcp
from hfpeer.net.address import Address
from hfpeer_daemon.app import endpoint_app
from hfpeer_daemon.http.door import INERT
from hfpeer_daemon.http.listeners import bound_address
from hfpeer_daemon.page.routes import page_routes
from hfpeer_daemon.page.views import Views

NO_BROWSER = why_no_browser()
pytestmark = [pytest.mark.slow, pytest.mark.skipif(NO_BROWSER is not None, reason=NO_BROWSER or "")]

REPO = f"/-/repo?name=models/Qwen/base-7B&commit={1:040x}"
PATHS = ("/", "/-/lan", "/-/repos", REPO, f"{REPO}&file=model.safetensors", "/-/history", "/-/settings")
FIRST_VIEW_BYTES = 100_000
GROUND = {"light": "rgb(246, 247, 247)", "dark": "rgb(17, 20, 22)"}
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@dataclass
class Seen:
    """A node, and the browser that looks at its page."""

    node: PictureNode
    tab: Tab
    url: str


@asynccontextmanager
async def seen(folder: Path, node: PictureNode) -> AsyncIterator[Seen]:
    settings = read_settings({"HOME": str(folder), "HFPEER_HOME": str(folder / "home")})
    listener = listen_tcp(Address("127.0.0.1", 0), "endpoint.listen")
    address, stop = bound_address(listener), asyncio.Event()
    app = endpoint_app(node, address, page=page_routes(Views(node, settings), stop))
    async with open_door(lambda _: app, listener=listener, headers=INERT):
        async with open_browser(folder) as tab:
            yield Seen(node, tab, address.url)
        stop.set()


def foreign(page: Seen) -> list[str]:
    return [url for url in page.tab.requests if not url.startswith(page.url)]


@pytest.mark.parametrize(("peers", "repos"), [(0, 0), (1, 3), (5, 40), (30, 200)])
async def test_every_view_suits_every_reader(tmp_path: Path, peers: int, repos: int) -> None:
    looks = [("light", "en", 1280), ("dark", "zh-CN", 390)]
    if peers == 5:
        looks = [("dark", "en", 390), ("light", "zh-CN", 1280)]
    async with seen(tmp_path, PictureNode(peers, repos)) as page:
        for theme, language, width in looks if repos else looks[:1]:
            await page.tab.look(theme=theme, language=language, width=width)
            for path in PATHS:
                await page.tab.open(page.url + path)
                where = (path, theme, language, width)
                assert await page.tab.run(OVERFLOW) <= 0, (where, "the page scrolls sideways")
                if peers in (0, 5):  # the others have the same elements, and thousands of them
                    assert await page.tab.violations() == [], where
                assert foreign(page) == [] and page.tab.bytes < FIRST_VIEW_BYTES, (where, page.tab.bytes)
                problems = [one for one in page.tab.problems if "404" not in one]
                assert problems == [], where  # the node without a repo has no story of one
                assert await page.tab.run("document.documentElement.lang") == language
                assert await page.tab.run("getComputedStyle(document.body).backgroundColor") == GROUND[theme]


async def test_a_change_arrives_without_a_reload_and_keeps_the_readers_place(tmp_path: Path) -> None:
    async with seen(tmp_path, PictureNode(5, 40)) as page:
        tab, node = page.tab, page.node
        await tab.open(page.url + "/")
        await tab.until("document.querySelector('.live').textContent === 'Live'")
        await tab.run("window.isTheSame = true")
        node.picture = replace(node.picture, sent_bytes=987_654_321_000)
        await tab.until("document.querySelector('[data-fragment=figures]').textContent.includes('987.7 GB')")
        assert await tab.run("window.isTheSame"), "the page was not loaded again"

        await tab.open(page.url + "/-/repos")
        await tab.run("document.querySelector('input').value = 'qwen'")
        await tab.run("document.querySelector('input').dispatchEvent(new Event('input'))")
        await tab.run("document.querySelector('tr:not([hidden]) a').focus()")
        place = await tab.run("document.activeElement.href")
        node.cached = [replace(one, size_bytes=one.size_bytes + 1) for one in node.cached]
        await tab.until(f"!!document.querySelector('data[value=\"{node.cached[0].size_bytes}\"]')")
        assert await tab.run("document.activeElement.href") == place
        shown = await tab.run("[...document.querySelectorAll('tbody tr:not([hidden])')].map(row => row.dataset.name)")
        assert shown and all("qwen" in name.lower() for name in shown)


async def test_thirty_peers_and_two_hundred_repos_stay_in_their_box(tmp_path: Path) -> None:
    async with seen(tmp_path, PictureNode(30, 200)) as page:
        tab = page.tab
        for width in (390, 1280):
            await tab.look(width=width)
            await tab.open(page.url + "/-/lan")
            box = "document.querySelector('.scroll.matrix')"
            assert await tab.run(OVERFLOW) <= 0
            assert await tab.run(f"{box}.scrollHeight > {box}.clientHeight && {box}.clientHeight < innerHeight")
            await tab.run(f"{box}.scrollTo(400, 900)")
            fixed = f"{box}.querySelector('thead th').getBoundingClientRect()"
            assert await tab.run(f"Math.abs({fixed}.left - {box}.getBoundingClientRect().left) < 3"), "names stay"
            assert await tab.run(f"Math.abs({fixed}.top - {box}.getBoundingClientRect().top) < 3"), "headings stay"


async def test_the_keyboard_reaches_everything_and_the_focus_is_seen(tmp_path: Path) -> None:
    async with seen(tmp_path, PictureNode(1, 3)) as page:
        tab = page.tab
        await tab.open(page.url + "/-/repos")
        reached = []
        for _ in range(13):
            await tab.press("Tab")
            reached.append(await tab.run("document.activeElement.textContent.trim() || document.activeElement.type"))
            assert await tab.run("getComputedStyle(document.activeElement).outlineStyle") != "none", reached
            box = await tab.run("(r => [r.left, r.right])(document.activeElement.getBoundingClientRect())")
            assert box[1] > 0, reached
        assert reached[0] == "Skip to the content"
        for name in ("This node", "The LAN", "Repos", "History", "Settings", "中文", "search", "Qwen/base-7B"):
            assert name in reached, (name, reached)
        await tab.run("document.querySelector('nav a[href=\"/-/lan\"]').focus()")
        await tab.press("Enter")
        await tab.until("location.pathname === '/-/lan' && document.readyState === 'complete'")


async def test_the_link_changes_the_language_and_it_stays(tmp_path: Path) -> None:
    async with seen(tmp_path, PictureNode(1, 3)) as page:
        tab = page.tab
        await tab.open(page.url + "/-/lan")
        await tab.run("document.querySelector('.language').click()")
        await tab.until("document.documentElement?.lang === 'zh-CN' && document.readyState === 'complete'")
        await tab.open(page.url + "/")
        assert await tab.run("document.querySelector('h2').textContent") == "正在进行"
