"""huggingface_hub: one file, then the whole repo. Prints what came as sha256 by path."""

import hashlib
import importlib.util
import json
import sys
from pathlib import Path

from huggingface_hub import hf_hub_download, snapshot_download

repo, one = sys.argv[1:]


def sha256(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


first = sha256(hf_hub_download(repo, one))
root = Path(snapshot_download(repo))
files = {path.relative_to(root).as_posix(): sha256(path) for path in root.rglob("*") if path.is_file()}
has_xet = importlib.util.find_spec("hf_xet") is not None
print(json.dumps({"one": first, "files": files, "has_xet": has_xet}))
