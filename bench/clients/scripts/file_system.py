"""HfFileSystem: ls, glob, info, and a file that is opened and read from its middle."""

import json
import sys
from typing import Any

from huggingface_hub import HfFileSystem

repo, path, start, size = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
fs: Any = HfFileSystem()
with fs.open(f"{repo}/{path}", block_size=1 << 18) as file:
    file.seek(start)
    middle = file.read(size)
    file.seek(-5, 2)
    end = file.read()
told = {
    "ls": sorted(fs.ls(repo, detail=False)),
    "glob": sorted(fs.glob(f"{repo}/**/*.safetensors")),
    "size": fs.info(f"{repo}/{path}")["size"],
    "middle": middle.hex(),
    "end": end.hex(),
    "exists": [fs.exists(f"{repo}/config.json"), fs.exists(f"{repo}/no.txt")],
}
print(json.dumps(told))
