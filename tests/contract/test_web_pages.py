"""A web page, and a browser, make the endpoint fetch and change nothing, and get nothing to act with."""

from __future__ import annotations

import shutil
import socket
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fakes.endpoint import Endpoint, Stage, staged
from fakes.hub import faults
from fakes.machine import Machines

BROWSER = {"User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36", "Accept-Language": "en"}
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    folder = tmp_path_factory.mktemp("pages")
    with Machines(folder) as machines, staged(folder, machines) as stage:
        stage.hub.put_repo("model", "acme/page", {"w.bin": b"weights", "index.html": b"<script>alert(1)</script>"})
        yield stage


@pytest.fixture
def ask(stage: Stage) -> Endpoint:
    stage.requests()
    return stage.endpoint


FOREIGN = [
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"},
    {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "no-cors"},
    {"Sec-Fetch-Site": "something-new"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": ""},
    {"Origin": "file://"},
    {"Origin": "chrome-extension://abcdef"},
    {"Referer": "http://evil.example/page"},
    {"Referer": "about:client"},
    BROWSER,
]
WAYS = [
    ("GET", "/acme/page/resolve/main/w.bin"),
    ("HEAD", "/acme/page/resolve/main/w.bin"),
    ("GET", "/api/models/acme/page"),
    ("GET", "/api/models?search=x"),
    ("OPTIONS", "/api/models/acme/page"),
    ("POST", "/api/repos/create"),
    ("PUT", "/api/models/acme/page/settings"),
    ("DELETE", "/api/repos/delete"),
    ("POST", "/acme/page.git/git-upload-pack"),
    ("POST", "/acme/page.git/info/lfs/objects/batch"),
    ("POST", "/"),
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_nothing_is_fetched_or_changed_for_a_foreign_page(stage: Stage, ask: Endpoint, headers: dict[str, str]) -> None:
    for method, target in WAYS:
        body = b"{}" if method in ("POST", "PUT") else None
        said = ask.ask(method, target, body, **{"Content-Type": "text/plain", **headers})
        assert said.status == 403, (method, target)
        assert not [name for name in said.headers if name.startswith("access-control-")]
    assert stage.requests() == []


def test_tools_and_pages_of_the_endpoint_itself_are_answered(stage: Stage, ask: Endpoint) -> None:
    own = ask.url
    for headers in (
        {},
        {"Sec-Fetch-Mode": "cors", "User-Agent": "node", "Accept-Language": "*"},  # what fetch of Node sends
        {"User-Agent": "Mozilla/5.0 (compatible; some tool)"},
        {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "cors", "Origin": own, "Referer": f"{own}/", **BROWSER},
        {"Sec-Fetch-Site": "same-origin", "Sec-Fetch-Mode": "navigate", **BROWSER},
        {"Origin": own.upper()},
    ):
        assert ask.get("/acme/page/resolve/main/w.bin", **headers).status == 307, headers


def test_a_browser_may_look_at_the_endpoints_own_pages(ask: Endpoint) -> None:
    typed = {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate", **BROWSER}
    for path in ("/", "/healthz", "/metrics"):
        assert ask.get(path, **typed).status == 200
        assert ask.get(path, **{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "cors"}).status == 403


def test_a_browser_can_only_show_what_it_gets(stage: Stage, ask: Endpoint) -> None:
    commit = stage.hub.repo("model", "acme/page").refs()["refs/heads/main"]
    for target in (f"/acme/page/resolve/{commit}/index.html", f"/acme/page/raw/{commit}/index.html", "/api/models"):
        said = ask.get(target)
        assert said.status == 200
        assert said.headers["x-content-type-options"] == "nosniff"
        assert said.headers["content-security-policy"].startswith("sandbox;")
        assert said.headers["cross-origin-resource-policy"] == "same-origin"


HUBS_OWN = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Credentials": "true",
    "Set-Cookie": "token=1; Domain=127.0.0.1",
    "Alt-Svc": 'h3=":443"',
    "Strict-Transport-Security": "max-age=31536000",
    "Clear-Site-Data": '"*"',
    "Reporting-Endpoints": 'a="https://hub.example/r"',
    "NEL": '{"report_to":"a"}',
    "Content-Security-Policy-Report-Only": "report-uri https://hub.example/r",
    "Refresh": "0; url=https://hub.example",
    "Service-Worker-Allowed": "/",
    "SourceMap": "/x",
    "Origin-Agent-Cluster": "?1",
    "Public-Key-Pins": "x",
    "Proxy-Authenticate": "Basic",
    "X-New-Header": "1",
}


def test_what_a_hub_tells_browsers_does_not_pass(stage: Stage, ask: Endpoint) -> None:
    for name, value in HUBS_OWN.items():
        stage.hub.inject(faults.with_header(name, value), listener="hub")
    try:
        said = ask.get("/api/models?limit=1")
    finally:
        stage.hub.faults.clear()
    assert said.status == 200
    assert said.headers["content-type"].startswith("application/json")
    assert not set(said.headers) & {name.lower() for name in HUBS_OWN}


CALLERS_OWN = {
    "Cookie": "token=1",
    "X-Forwarded-For": "10.0.0.1",
    "X-Real-IP": "10.0.0.1",
    "Via": "1.1 proxy",
    "Sec-Fetch-Mode": "cors",
    "DNT": "1",
    "TE": "trailers",
    "X-Api-Key": "secret",
    "Proxy-Authorization": "Basic eDp5",
    "X-Csrf-Token": "secret",
}


def test_a_hub_hears_of_a_caller_what_tools_say_to_it(stage: Stage, ask: Endpoint) -> None:
    ask.get("/api/models?limit=1", **CALLERS_OWN, Accept="application/json", X_Amzn_Trace_Id="Root=1")
    heard = {name.lower(): value for name, value in stage.hub.requests[-1].request.headers.items()}
    assert heard["accept"] == "application/json"
    assert heard["x-amzn-trace-id"] == "Root=1"
    assert heard["user-agent"] == "test/1"
    assert not set(heard) & {name.lower() for name in CALLERS_OWN}


class _Page(BaseHTTPRequestHandler):
    """A foreign page that tries every way to make a browser ask the endpoint."""

    target = ""

    def do_GET(self) -> None:
        page = f"""<body><img src="{self.target}/acme/page/resolve/main/w.bin">
            <script src="{self.target}/acme/page/resolve/main/index.html"></script>
            <iframe src="{self.target}/acme/page/resolve/main/index.html"></iframe>
            <img referrerpolicy="no-referrer" src="{self.target}/acme/page/resolve/main/config.json">
            <script>fetch("{self.target}/api/models/acme/page", {{mode: "no-cors"}});
            fetch("{self.target}/api/repos/create", {{method: "POST", body: "x", mode: "no-cors"}});
            navigator.sendBeacon("{self.target}/api/repos/create", "x");</script>""".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, format: str, *arguments: object) -> None:
        """Says nothing."""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_real_browser_makes_the_endpoint_fetch_nothing(stage: Stage, ask: Endpoint, tmp_path: Path) -> None:
    page = type("Page", (_Page,), {"target": ask.url})
    with ThreadingHTTPServer(("127.0.0.1", 0), page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            browse = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}"]
            # By another name, so that for the browser it is another site.
            where = f"http://{socket.gethostname()}.localhost:{server.server_port}/"
            shown = subprocess.run(
                [*browse, "--virtual-time-budget=3000", "--dump-dom", where],
                capture_output=True,
                timeout=60,
                check=True,
            )
        finally:
            server.shutdown()
    assert b"/acme/page/resolve/main/w.bin" in shown.stdout
    assert stage.requests() == []
