"""Places as other tools leave them, built from their sources: what an adoption has to understand.

Each builder puts the files of a repo into a folder the way its tool keeps them, and returns the folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fakes.hub_cache import digest_of, download
from hfpeer.git.lfs import pointer_text
from hfpeer.names import Commit, RepoId

GIT_ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_TERMINAL_PROMPT": "0",
    "GIT_LFS_SKIP_SMUDGE": "1",
    "LC_ALL": "C",
}


@dataclass(frozen=True)
class Shelved:
    """What a builder gets: an empty folder, the repo, its commit and files, and where a hub has it. `.bin`, `.gguf` and
    `.safetensors` files are LFS files."""

    folder: Path
    repo: RepoId
    commit: str
    files: Mapping[str, bytes]
    hub_url: str = ""

    @property
    def largest(self) -> tuple[str, bytes]:
        return max(self.files.items(), key=lambda file: len(file[1]))


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


def is_lfs(path: str) -> bool:
    return path.endswith((".bin", ".gguf", ".safetensors"))


def put(path: Path, body: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(body.encode() if isinstance(body, str) else body)
    return path


def put_all(folder: Path, files: Mapping[str, bytes]) -> Path:
    for path, body in files.items():
        put(folder / path, body)
    return folder


# Hugging Face


def hub_cache(shelved: Shelved) -> Path:
    files = {path: body for path, body in shelved.files.items() if not is_lfs(path)}
    snapshot = download(shelved.folder, files, Commit(shelved.commit), shelved.repo)
    for path, body in shelved.files.items():
        if is_lfs(path):
            blob = put(shelved.folder / shelved.repo.folder / "blobs" / sha256(body), body)
            (snapshot / path).parent.mkdir(parents=True, exist_ok=True)
            (snapshot / path).symlink_to(os.path.relpath(blob, (snapshot / path).parent))
    # vLLM's locks, and the rest of a download that llama.cpp did not finish
    put(shelved.folder / f"{sha256(b'x')}{shelved.repo.name}.lock", "")
    put(shelved.folder / shelved.repo.folder / "blobs" / f"{sha256(b'y')}.downloadInProgress", b"part")
    return shelved.folder


def hub_cache_with_shared_store(shelved: Shelved) -> Path:
    """As after an Xet download since 1.32: a blob is a link into a store that repos share."""
    folder = hub_cache(shelved)
    for blob in (folder / shelved.repo.folder / "blobs").iterdir():
        if len(blob.name) == 64:
            store = folder / "blobs" / "ab" / sha256(blob.name.encode())
            store.parent.mkdir(parents=True, exist_ok=True)
            blob.replace(store)
            blob.symlink_to(os.path.relpath(store, blob.parent))
    return folder


def hub_cache_without_links(shelved: Shelved) -> Path:
    """As llama.cpp and exFAT leave it: the bytes lie in the snapshot."""
    snapshot = shelved.folder / shelved.repo.folder / "snapshots" / shelved.commit
    put_all(snapshot, shelved.files)
    put(shelved.folder / shelved.repo.folder / "refs" / "main", shelved.commit)
    return shelved.folder


def local_dir(shelved: Shelved) -> Path:
    put_all(shelved.folder, shelved.files)
    for path, body in shelved.files.items():
        etag = sha256(body) if is_lfs(path) else digest_of(path, body).hex
        text = f"{shelved.commit}\n{etag}\n{time.time() + 1}\n"
        put(shelved.folder / ".cache/huggingface/download" / f"{path}.metadata", text)
    put(shelved.folder / ".cache/huggingface/.gitignore", "*")
    return shelved.folder


def hfd(shelved: Shelved) -> Path:
    put_all(shelved.folder, shelved.files)
    siblings = [{"rfilename": path} for path in shelved.files]
    document = {"id": shelved.repo.full_name, "sha": shelved.commit, "siblings": siblings}
    put(shelved.folder / ".hfd/repo_metadata.json", json.dumps(document))
    put(shelved.folder / ".hfd/last_download_command", "HF_TOKEN=hf_secret")
    put(shelved.folder / ".hfd/aria2c_urls.txt", "")
    # aria2 allocates under the final name, and keeps FILE.aria2 beside it until the file is whole
    put(shelved.folder / "unfinished.bin", bytes(50_000))
    put(shelved.folder / "unfinished.bin.aria2", b"\0\1")
    return shelved.folder


def git_clone(shelved: Shelved) -> Path:
    """A real clone with LFS: the objects, and copies of them in the work tree."""
    _clone(shelved)
    for path, body in shelved.files.items():
        if is_lfs(path):
            digest = sha256(body)
            put(shelved.folder / ".git/lfs/objects" / digest[:2] / digest[2:4] / digest, body)
            put(shelved.folder / path, body)
    return shelved.folder


def git_clone_without_lfs(shelved: Shelved) -> Path:
    """A real clone whose weights are pointers."""
    _clone(shelved)
    for path, body in shelved.files.items():
        if is_lfs(path):
            assert (shelved.folder / path).read_bytes() == pointer_text(sha256(body), len(body))
    return shelved.folder


def _clone(shelved: Shelved) -> None:
    url = f"{shelved.hub_url}/{shelved.repo.url_path}"
    command = ["git", "clone", "-q", url, str(shelved.folder)]
    subprocess.run(command, check=True, env=GIT_ENVIRONMENT, capture_output=True, timeout=60)


def hfdownloader(shelved: Shelved) -> Path:
    put_all(shelved.folder / "Storage" / shelved.repo.full_name, shelved.files)
    put(shelved.folder / "Storage" / shelved.repo.full_name / "more.bin.part-01", b"part")
    return shelved.folder


# Tools for GGUF files


def ollama(shelved: Shelved) -> Path:
    _, body = shelved.largest
    config, license = b'{"model_format":"gguf"}', b"Apache"
    for blob in (body, config, license):
        put(shelved.folder / "blobs" / f"sha256-{sha256(blob)}", blob)
    put(shelved.folder / "blobs" / f"sha256-{sha256(b'other')}-partial", b"part")
    layers = [(body, "application/vnd.ollama.image.model"), (license, "application/vnd.ollama.image.license")]
    document = {
        "schemaVersion": 2,
        "config": _layer(config, "application/vnd.docker.container.image.v1+json"),
        "layers": [_layer(*layer) for layer in layers],
    }
    put(shelved.folder / "manifests/hf.co" / shelved.repo.full_name / "Q4_K_M", json.dumps(document))
    return shelved.folder


def _layer(body: bytes, kind: str) -> dict[str, object]:
    return {"mediaType": kind, "digest": f"sha256:{sha256(body)}", "size": len(body)}


def lm_studio(shelved: Shelved) -> Path:
    path, body = shelved.largest
    put(shelved.folder / shelved.repo.full_name / path, body)
    return shelved.folder


def llama_cpp(shelved: Shelved) -> Path:
    path, body = shelved.largest
    name = f"{shelved.repo.namespace}_{shelved.repo.name}_{path.replace('/', '_')}"
    put(shelved.folder / name, body)
    put(shelved.folder / f"{name}.etag", f'"{sha256(body)}"')
    put(shelved.folder / f"{name}.downloadInProgress", b"part")
    tag = f"manifest={shelved.repo.namespace}={shelved.repo.name}=Q4_K_M.json"
    put(shelved.folder / tag, json.dumps({"ggufFile": {"rfilename": path, "size": len(body)}}))
    return shelved.folder


def gpt4all(shelved: Shelved) -> Path:
    path, body = shelved.largest
    put(shelved.folder / path.rpartition("/")[2], body)
    put(shelved.folder / "other.gguf.part", b"part")
    return shelved.folder


def jan(shelved: Shelved) -> Path:
    body = shelved.largest[1]
    model = f"llamacpp/models/{shelved.repo.full_name}"
    put(shelved.folder / model / "model.gguf", body)
    yml = f"model_path: {model}/model.gguf\nname: tiny\nsize_bytes: {len(body)}\nembedding: false\n"
    put(shelved.folder / model / "model.yml", yml)
    return shelved.folder


def jan_elsewhere(shelved: Shelved) -> Path:
    """A model that the user imported: it stays where it was."""
    path, body = shelved.largest
    elsewhere = put(shelved.folder.parent / "elsewhere" / path, body)
    yml = f"model_path: {elsewhere}\nname: tiny\nsize_bytes: {len(body)}\n"
    put(shelved.folder / "llamacpp/models/mine/model.yml", yml)
    return shelved.folder


# Tools for pictures


def comfyui(shelved: Shelved) -> Path:
    body = shelved.largest[1]
    put(shelved.folder / "folder_paths.py", "# ComfyUI\n")
    put(shelved.folder / "models/checkpoints/put_checkpoints_here", "")
    put(shelved.folder / "models/diffusion_models/my name for it.safetensors", body)
    return shelved.folder


def comfyui_elsewhere(shelved: Shelved) -> Path:
    body = shelved.largest[1]
    put(shelved.folder / "models/checkpoints/put_checkpoints_here", "text")
    elsewhere = shelved.folder.parent / "elsewhere"
    put(elsewhere / "models/Stable-diffusion/mine.safetensors", body)
    folders = "    checkpoints: models/Stable-diffusion\n    loras: |\n        models/Lora\n"
    yml = f"a111:\n    base_path: {elsewhere}/\n{folders}"
    put(shelved.folder / "extra_model_paths.yaml", yml)
    return shelved.folder


def a1111(shelved: Shelved) -> Path:
    body = shelved.largest[1]
    model = put(shelved.folder / "models/Stable-diffusion/mine.safetensors", body)
    put(shelved.folder / "models/Lora/empty.txt", "")
    entry = {"mtime": model.stat().st_mtime, "sha256": sha256(body)}
    wrong = {"mtime": model.stat().st_mtime, "sha256": sha256(b"another")}
    document = {"hashes": {"checkpoint/mine.safetensors": entry}, "hashes-addnet": {"lora/mine": wrong}}
    put(shelved.folder / "cache.json", json.dumps(document))
    return shelved.folder


# ModelScope, torch, old layouts


def modelscope(shelved: Shelved) -> Path:
    name = shelved.repo.full_name.replace("/", "--")
    put_all(shelved.folder / "models" / name / "snapshots/master", shelved.files)
    put(shelved.folder / "models" / name / "snapshots/master/more.bin.incomplete", b"part")
    put(shelved.folder / ".lock" / f"file_{sha256(b'x')}.lock", "")
    return shelved.folder


class _Bomb:
    """A pickle that leaves a mark when it is loaded."""

    def __init__(self, mark: str) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, ...]]:
        return Path.touch, (Path(self._mark),)  # type: ignore[return-value]


def modelscope_old(shelved: Shelved) -> Path:
    """Before 1.38. The pickle beside the files leaves `loaded` next to the place if anybody loads it."""
    owner, name = shelved.repo.full_name.split("/")
    folder = shelved.folder / "hub" / owner / name.replace(".", "___")
    put_all(folder, shelved.files)
    put(folder / ".msc", pickle.dumps(_Bomb(str(shelved.folder.parent / "loaded"))))
    put(folder / ".mdl", pickle.dumps(_Bomb(str(shelved.folder.parent / "loaded"))))
    put(folder / ".mv", "Revision:master,CreatedAt:1700000000")
    put(shelved.folder / "hub/._____temp" / owner / "x.bin", b"part")
    return shelved.folder


def torch_hub(shelved: Shelved) -> Path:
    body = shelved.largest[1]
    put(shelved.folder / "checkpoints" / f"tiny_patch16-{sha256(body)[:8]}.pth", body)
    return shelved.folder


def old_transformers(shelved: Shelved) -> Path:
    for path, body in shelved.files.items():
        etag = sha256(body) if is_lfs(path) else digest_of(path, body).hex
        url = f"https://huggingface.co/{shelved.repo.full_name}/resolve/main/{path}"
        name = f"{sha256(url.encode())}.{sha256(etag.encode())}"
        put(shelved.folder / name, body)
        put(shelved.folder / f"{name}.json", json.dumps({"url": url, "etag": f'"{etag}"'}))
        put(shelved.folder / f"{name}.lock", "")
    return shelved.folder


def old_sentence_transformers(shelved: Shelved) -> Path:
    put_all(shelved.folder / shelved.repo.full_name.replace("/", "_"), shelved.files)
    return shelved.folder


def plain_folder(shelved: Shelved) -> Path:
    put_all(shelved.folder / "some" / "where", shelved.files)
    return shelved.folder


WHOLE: dict[str, Callable[[Shelved], Path]] = {
    "HF cache": hub_cache,
    "HF cache, shared store": hub_cache_with_shared_store,
    "HF cache, no links": hub_cache_without_links,
    "hf --local-dir": local_dir,
    "hfd": hfd,
    "git clone": git_clone,
    "hfdownloader": hfdownloader,
    "ModelScope": modelscope,
    "ModelScope, old": modelscope_old,
    "old transformers": old_transformers,
    "old sentence-transformers": old_sentence_transformers,
    "folder": plain_folder,
}
"""Tools that keep all files of a repo."""
SINGLE: dict[str, Callable[[Shelved], Path]] = {
    "Ollama": ollama,
    "LM Studio": lm_studio,
    "llama.cpp": llama_cpp,
    "GPT4All": gpt4all,
    "Jan": jan,
    "Jan, elsewhere": jan_elsewhere,
    "ComfyUI": comfyui,
    "ComfyUI, elsewhere": comfyui_elsewhere,
    "A1111/Forge": a1111,
    "torch.hub": torch_hub,
}
"""Tools that keep one file of a repo."""
