"""A downloader that speaks HTTP itself, with the requests of llama.cpp (common/hf-cache.cpp, common/download.cpp):
refs, the tree of the commit, HEAD of a file at the commit, GET, and after a cut the rest, which must be a 206."""

import hashlib
import http.client
import json
import sys
from urllib.parse import quote, urlsplit

endpoint, repo, path = sys.argv[1:]
HEADERS = {"User-Agent": "llama-cpp/b0-conformance", "Accept": "application/json"}


def ask(method: str, target: str, **headers: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(urlsplit(endpoint).netloc, timeout=60)
    connection.request(method, target, headers={**HEADERS, **headers})
    return connection.getresponse()


refs = json.load(ask("GET", f"/api/models/{repo}/refs"))
commit = next(branch["targetCommit"] for branch in refs["branches"] if branch["name"] == "main")
tree = json.load(ask("GET", f"/api/models/{repo}/tree/{commit}?recursive=true"))
entry = next(entry for entry in tree if entry["path"] == path)
target = f"/{repo}/resolve/{commit}/{quote(path)}"
head = ask("HEAD", target)
assert head.status == 200 and head.headers["Accept-Ranges"] == "bytes", (head.status, head.headers.items())
assert head.headers["ETag"].strip('"') == entry["lfs"]["oid"], head.headers["ETag"]
size = int(head.headers["Content-Length"])
first = ask("GET", target)
assert first.status == 200, first.status
body = first.read(size // 2)
first.close()
rest = ask("GET", target, Range=f"bytes={len(body)}-")
assert rest.status == 206, rest.status
body += rest.read()
print(json.dumps({"size": size, "sha256": hashlib.sha256(body).hexdigest()}))
