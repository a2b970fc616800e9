"""Finds the places of other tools on this machine: by their settings and environment, then where they are by default.

It reads a few small files and lists a few folders; it walks no disk. A setting is a path and nothing else: no file that
may hold a token is read, and no environment of another process.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from hfpeer.adoption.places import diffusion, hub_cache, jan, llama_cpp, modelscope, old_layouts, ollama, plain
from hfpeer.adoption.places import torch_hub as torch
from hfpeer.adoption.walking import read_small
from hfpeer.config.paths import user_home

MAX_SETTINGS_BYTES = 1024 * 1024
MAX_HOMES = 256
"""Homes of other users, and processes of this one, that are looked at."""
_WORDS_WITH_FOLDER: Mapping[str, str] = {
    "--download-dir": hub_cache.TOOL,  # vLLM, SGLang
    "--huggingface-hub-cache": hub_cache.TOOL,  # text-generation-inference
    "--base-directory": diffusion.COMFYUI,
    "--models-directory": diffusion.COMFYUI,
    "--ckpt-dir": diffusion.A1111,
    "--lora-dir": diffusion.A1111,
}
"""Words on the command lines of running tools that name a folder."""
_SYSTEMD_MODELS = re.compile(r"""^\s*Environment=.*?["\s=]?OLLAMA_MODELS=([^"\s]+)""", re.MULTILINE)


@dataclass(frozen=True)
class KnownPlace:
    """A folder of another tool."""

    tool: str
    path: Path


def known_places(environ: Mapping[str, str], *, root: Path = Path("/")) -> list[KnownPlace]:
    """The places that exist, each folder once. `root` is the top of the system, for tests."""
    found: dict[Path, KnownPlace] = {}
    for tool, path in _candidates(_Machine(environ, root)):
        with contextlib.suppress(OSError, ValueError, RuntimeError):
            if path.is_dir():
                found.setdefault(path.resolve(), KnownPlace(tool, path))
    return list(found.values())


class _Machine:
    """The environment and the folders of this machine, as a tool of this user sees them."""

    def __init__(self, environ: Mapping[str, str], root: Path) -> None:
        self.root = root
        self.environ = environ
        self.home = user_home(environ)
        self.cache = self.named("XDG_CACHE_HOME") or self.home / ".cache"
        self.data = self.named("XDG_DATA_HOME") or self.home / ".local" / "share"
        self.config = self.named("XDG_CONFIG_HOME") or self.home / ".config"

    def named(self, variable: str) -> Path | None:
        """The folder that a variable names."""
        text = self.environ.get(variable, "")
        return self.expanded(text) if text else None

    def expanded(self, text: str) -> Path:
        """The path in a setting, whose `~` is the home of this user."""
        inside = text.removeprefix("~/") if text.startswith("~/") else ""
        return self.home / inside if inside or text == "~" else Path(text)

    def document(self, path: Path) -> dict[str, object]:
        """The JSON object in a small file of settings; empty without one."""
        try:
            found = json.loads(read_small(path, MAX_SETTINGS_BYTES) or b"")
        except (ValueError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    def text(self, path: Path) -> str:
        return (read_small(path, MAX_SETTINGS_BYTES) or b"").decode("utf-8", "replace")


def _candidates(machine: _Machine) -> Iterator[tuple[str, Path]]:
    """Every place that a tool may have, those of settings before the default ones."""
    for find in (
        _of_processes,
        _hub_caches,
        _ollama,
        _lm_studio,
        _llama_cpp,
        _modelscope,
        _jan,
        _gpt4all,
        _diffusion,
        _torch,
        _other_homes,
    ):
        yield from find(machine)


def _named(machine: _Machine, tool: str, *variables: str) -> Iterator[tuple[str, Path]]:
    paths = map(machine.named, variables)
    return ((tool, path) for path in paths if path is not None)


def _hub_caches(machine: _Machine) -> Iterator[tuple[str, Path]]:
    """Source: huggingface_hub `constants`, sentence-transformers, and transformers before 5."""
    yield from _named(
        machine,
        hub_cache.TOOL,
        "HF_HUB_CACHE",
        "HUGGINGFACE_HUB_CACHE",
        "TRANSFORMERS_CACHE",
        "PYTORCH_TRANSFORMERS_CACHE",
        "SENTENCE_TRANSFORMERS_HOME",
    )
    home = machine.named("HF_HOME")
    if home is not None:
        yield hub_cache.TOOL, home / "hub"
    yield hub_cache.TOOL, machine.cache / "huggingface" / "hub"
    yield hub_cache.TOOL, machine.home / ".cache" / "huggingface" / "hub"
    yield old_layouts.TRANSFORMERS, machine.cache / "huggingface" / "transformers"


def _ollama(machine: _Machine) -> Iterator[tuple[str, Path]]:
    """The service on Linux runs as the user `ollama`, with variables in a unit of systemd."""
    yield from _named(machine, ollama.TOOL, "OLLAMA_MODELS")
    units = [machine.root / "etc/systemd/system/ollama.service"]
    with contextlib.suppress(OSError):
        units += sorted((machine.root / "etc/systemd/system/ollama.service.d").glob("*.conf"))
    for unit in units[:MAX_HOMES]:
        yield from ((ollama.TOOL, Path(path)) for path in _SYSTEMD_MODELS.findall(machine.text(unit)))
    yield ollama.TOOL, machine.home / ".ollama/models"
    yield ollama.TOOL, machine.root / "usr/share/ollama/.ollama/models"
    yield ollama.TOOL, machine.root / "var/lib/ollama/models"
    yield ollama.TOOL, machine.root / "var/lib/ollama/.ollama/models"


def _lm_studio(machine: _Machine) -> Iterator[tuple[str, Path]]:
    pointed = machine.text(machine.home / ".lmstudio-home-pointer").strip()
    homes = [machine.expanded(pointed)] if pointed else []
    homes += [machine.home / ".lmstudio", machine.cache / "lm-studio"]
    for home in homes:
        folder = machine.document(home / "settings.json").get("downloadsFolder")
        if isinstance(folder, str) and folder:
            yield plain.LM_STUDIO, machine.expanded(folder)
        yield plain.LM_STUDIO, home / "models"


def _llama_cpp(machine: _Machine) -> Iterator[tuple[str, Path]]:
    yield from _named(machine, llama_cpp.TOOL, "LLAMA_CACHE")
    yield llama_cpp.TOOL, machine.cache / "llama.cpp"


def _modelscope(machine: _Machine) -> Iterator[tuple[str, Path]]:
    yield from _named(machine, modelscope.TOOL, "MODELSCOPE_CACHE")
    yield modelscope.TOOL, machine.cache / "modelscope"
    yield modelscope.TOOL, machine.home / ".cache/modelscope"


def _jan(machine: _Machine) -> Iterator[tuple[str, Path]]:
    for settings in (machine.config / "Jan/settings.json", machine.data / "Jan/settings.json"):
        folder = machine.document(settings).get("data_folder")
        if isinstance(folder, str) and folder:
            yield jan.TOOL, machine.expanded(folder)
    yield jan.TOOL, machine.data / "Jan/data"
    yield jan.TOOL, machine.home / "jan"


def _gpt4all(machine: _Machine) -> Iterator[tuple[str, Path]]:
    yield plain.GPT4ALL, machine.home / ".cache/gpt4all"
    yield plain.GPT4ALL, machine.data / "nomic.ai/GPT4All"


def _diffusion(machine: _Machine) -> Iterator[tuple[str, Path]]:
    for name in ("ComfyUI", "comfy/ComfyUI", "Documents/ComfyUI"):
        yield diffusion.COMFYUI, machine.home / name
    for name in ("stable-diffusion-webui", "stable-diffusion-webui-forge"):
        yield diffusion.A1111, machine.home / name


def _torch(machine: _Machine) -> Iterator[tuple[str, Path]]:
    homes = [machine.named("TORCH_HOME"), machine.cache / "torch"]
    for home in homes:
        if home is not None:
            yield torch.TOOL, home / "hub"
            yield old_layouts.SENTENCES, home / "sentence_transformers"


def _other_homes(machine: _Machine) -> Iterator[tuple[str, Path]]:
    """The Hub caches of other users, beside the home of this one."""
    with contextlib.suppress(OSError):
        for home in sorted(islice((machine.root / "home").iterdir(), MAX_HOMES)):
            yield hub_cache.TOOL, home / ".cache/huggingface/hub"


def _of_processes(machine: _Machine) -> Iterator[tuple[str, Path]]:
    """The folders on the command lines of this user's running tools. Source: proc_pid_cmdline(5)."""
    for folder in islice(_own_processes(machine.root / "proc"), MAX_HOMES):
        words = machine.text(folder / "cmdline").split("\0")
        for word, value in zip(words, [*words[1:], ""], strict=True):
            name, has_value, inside = word.partition("=")
            if name in _WORDS_WITH_FOLDER and (inside if has_value else value).startswith("/"):
                yield _WORDS_WITH_FOLDER[name], Path(inside if has_value else value)


def _own_processes(folder: Path) -> Iterable[Path]:
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            with contextlib.suppress(OSError):
                if path.name.isdecimal() and path.stat().st_uid == os.geteuid():
                    yield path
