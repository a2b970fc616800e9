"""ComfyUI, and A1111 with Forge: model folders under the user's own names. Pure.

ComfyUI: `models/{checkpoints,loras,…}`, and more folders in `extra_model_paths.yaml`. A1111: `models/Stable-diffusion`,
and `cache.json`, whose `hashes["checkpoint/NAME"]` counts while the file is not younger; its `hashes-addnet` are not
the hashes of files. Source: ComfyUI `folder_paths.py`; stable-diffusion-webui `modules/hashes.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import yaml

from hfpeer.adoption.candidates import Found, Hint, Reader, Worth, candidate, hint_of
from hfpeer.adoption.listing import Listing

COMFYUI, A1111 = "ComfyUI", "A1111/Forge"
MAX_ELSEWHERE = 64
"""Folders that the settings of one tool name elsewhere; the others are left out."""
_SUFFIXES = (".bin", ".ckpt", ".gguf", ".pkl", ".pt", ".pt2", ".pth", ".safetensors", ".sft")
_MODELS = ("checkpoints", "clip", "controlnet", "diffusion_models", "loras", "text_encoders", "unet", "vae")
_EXTRA = ("extra_model_paths.yaml", "extra_models_config.yaml")
_A1111_MODELS = "models/Stable-diffusion/"


def comfyui_roots(listing: Listing) -> Iterable[str]:
    """The folders with `models/checkpoints` and the like in them, and folders of models that the user named."""
    found: dict[str, None] = {}
    seen: dict[str, set[str]] = {}
    for path in listing:
        parts = path.split("/")
        for at, part in enumerate(parts[:-1]):
            if part in _MODELS:
                is_inside = at > 0 and parts[at - 1] == "models"
                around = "/".join(parts[: at - 1] if is_inside else parts[:at])
                seen.setdefault(around, set()).add(part)
                if is_inside or len(seen[around]) > 1:
                    found[around] = None
                break
    return found


def read_comfyui(listing: Listing) -> Found:
    found = _models(listing, COMFYUI)
    for name in _EXTRA:
        if name in listing:
            found.elsewhere += list(_extra_folders(listing.text(name) or ""))[:MAX_ELSEWHERE]
    return found


def _extra_folders(text: str) -> Iterator[str]:
    """The absolute folders in `extra_model_paths.yaml`: each section has a `base_path`, and paths relative to it."""
    try:
        document = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        return
    for section in document.values() if isinstance(document, dict) else ():
        if not isinstance(section, dict):
            continue
        base = section.get("base_path")
        for key, value in section.items():
            if key in ("base_path", "is_default") or not isinstance(value, str):
                continue
            for line in filter(None, map(str.strip, value.split("\n"))):
                whole = f"{base.rstrip('/')}/{line}" if isinstance(base, str) and not line.startswith("/") else line
                if whole.startswith(("/", "~")):
                    yield whole


def a1111_roots(listing: Listing) -> Iterable[str]:
    rooted = (f"/{path}".partition(f"/{_A1111_MODELS}") for path in listing)
    return dict.fromkeys(folder.removeprefix("/") for folder, found, _ in rooted if found)


def read_a1111(listing: Listing) -> Found:
    hashes = listing.document("cache.json").get("hashes")
    return _models(listing, A1111, hashes if isinstance(hashes, dict) else {})


def _models(listing: Listing, tool: str, hashes: dict[str, Any] | None = None) -> Found:
    found = Found()
    for path in listing:
        if path.lower().endswith(_SUFFIXES):
            found.candidates += candidate(listing, path, tool, _hint(listing, path, hashes or {}))
    return found


def _hint(listing: Listing, path: str, hashes: dict[str, Any]) -> Hint | None:
    if not path.startswith(_A1111_MODELS):
        return None
    entry = hashes.get(f"checkpoint/{path.removeprefix(_A1111_MODELS)}")
    entry = entry if isinstance(entry, dict) else {}
    hashed_at = entry.get("mtime")
    if not isinstance(hashed_at, (int, float)) or listing[path].mtime_ns > (hashed_at + 1) * 1e9:
        return None
    hint = hint_of(entry.get("sha256"), Worth.METADATA)
    return hint if hint is not None and hint.algorithm == "sha256" else None


COMFYUI_READER = Reader(COMFYUI, read_comfyui, comfyui_roots)
A1111_READER = Reader(A1111, read_a1111, a1111_roots)
