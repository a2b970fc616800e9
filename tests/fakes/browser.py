"""A headless Chromium, driven through its DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
PATIENCE_SECONDS = 60.0


def why_no_browser() -> str | None:
    """Why no test can drive a browser here; None if it can."""
    if CHROMIUM is None:
        return "there is no Chromium"
    missing = [name for name in ("axe_core_python", "websockets") if find_spec(name) is None]
    return f"{missing[0]} is part of the page extra" if missing else None


class Tab:
    """A page in the browser. `requests` are the URLs that it asked for, `bytes` what came over the network for them."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self.requests: list[str] = []
        self.bytes = 0
        self.problems: list[str] = []

    async def read(self) -> None:
        """Reads what the browser says, until the connection ends."""
        from websockets.exceptions import ConnectionClosed

        with suppress(ConnectionClosed):  # the browser ends without a farewell
            await self._read()

    async def _read(self) -> None:
        async for text in self._socket:
            message = json.loads(text)
            if "id" in message:
                self._waiting.pop(message["id"]).set_result(message)
            elif message["method"] == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
            elif message["method"] == "Network.loadingFinished":
                self.bytes += int(message["params"]["encodedDataLength"])
            elif message["method"] == "Page.loadEventFired":
                self._loaded.set()
            elif message["method"] in ("Log.entryAdded", "Runtime.exceptionThrown"):
                self.problems.append(json.dumps(message["params"])[:500])

    async def ask(self, method: str, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        message = await asyncio.wait_for(self._waiting[number], PATIENCE_SECONDS)
        assert "error" not in message, (method, message)
        found: dict[str, Any] = message["result"]
        return found

    async def run(self, script: str) -> Any:
        """The value of an expression in the page; of a promise what it gives."""
        said = await self.ask("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in said, said["exceptionDetails"]
        return said["result"].get("value")

    async def open(self, url: str) -> None:
        """Opens a page and waits until it has loaded."""
        self._loaded.clear()
        self.requests.clear()
        self.bytes = 0
        await self.ask("Page.navigate", url=url)
        await asyncio.wait_for(self._loaded.wait(), PATIENCE_SECONDS)

    async def look(self, *, width: int = 1280, height: int = 860, theme: str = "light", language: str = "en") -> None:
        """The size of the window, the theme and the language of the next page."""
        await self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        features = [{"name": "prefers-color-scheme", "value": theme}]
        await self.ask("Emulation.setEmulatedMedia", features=features)
        await self.ask("Network.setExtraHTTPHeaders", headers={"Accept-Language": language})

    async def until(self, script: str) -> Any:
        """Waits until an expression in the page is true, and gives its value."""
        end = time.monotonic() + PATIENCE_SECONDS
        while time.monotonic() < end:
            if value := await self.run(script):
                return value
            await asyncio.sleep(0.05)
        raise AssertionError(f"never true: {script}")

    async def press(self, key: str) -> None:
        code = {"Tab": 9, "Enter": 13}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        await self.ask("Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=code, **text)
        await self.ask("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=code)

    async def screenshot(self, file: Path, *, is_whole: bool = True) -> None:
        said = await self.ask("Page.captureScreenshot", captureBeyondViewport=is_whole)
        await asyncio.to_thread(file.write_bytes, base64.b64decode(said["data"]))

    async def violations(self) -> list[str]:
        """What axe finds serious or critical, in words."""
        import axe_core_python

        script = Path(axe_core_python.__file__ or "").with_name("axe.min.js").read_text(encoding="utf-8")
        await self.run(script + ";0")
        found = await self.run("axe.run().then(found => found.violations)")
        return [
            f"{one['id']}: {one['help']}: {[node['target'] for node in one['nodes']][:3]}"
            for one in found
            if one["impact"] in ("serious", "critical")
        ]


@asynccontextmanager
async def open_browser(folder: Path) -> AsyncIterator[Tab]:
    """A browser with one tab, whose files lie in `folder`; ended at the end."""
    from websockets.asyncio.client import connect

    assert CHROMIUM is not None
    environ = {**os.environ, "HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "XDG_CACHE_HOME": str(folder)}
    process = await asyncio.create_subprocess_exec(
        *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-extensions"),
        *("--disable-background-networking", "--disable-dev-shm-usage", "--hide-scrollbars", "--no-proxy-server"),
        *("--remote-debugging-port=0", f"--user-data-dir={folder / 'profile'}", "about:blank"),
        env=environ,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    draining: asyncio.Task[bytes] | None = None
    try:
        port = await asyncio.wait_for(_port(process.stderr), PATIENCE_SECONDS)
        draining = asyncio.create_task(process.stderr.read())
        address = await asyncio.to_thread(_tab_address, port)
        async with connect(address, max_size=1 << 26) as socket:
            tab = Tab(socket)
            reading = asyncio.create_task(tab.read())
            for domain in ("Page", "Network", "Runtime", "Log"):
                await tab.ask(f"{domain}.enable")
            yield tab
            await tab.ask("Browser.close")
        await reading
    finally:
        if process.returncode is None:
            try:
                await asyncio.wait_for(process.wait(), 10)
            except asyncio.TimeoutError:
                process.kill()
                await process.wait()
        if draining is not None:
            await draining


async def _port(stderr: asyncio.StreamReader) -> int:
    """The port of its DevTools, which it tells in a line of stderr."""
    while line := (await stderr.readline()).decode():
        if "DevTools listening on" in line:
            return int(line.rpartition(":")[2].partition("/")[0])
    raise AssertionError("the browser ended before it was ready")


def _tab_address(port: int) -> str:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_SECONDS)
    try:
        connection.request("GET", "/json/list")
        tabs = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    return str(next(tab["webSocketDebuggerUrl"] for tab in tabs if tab["type"] == "page"))
