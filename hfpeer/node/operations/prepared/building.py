"""Runs the user's own `datasets`, in a Python of the user's choice, on a snapshot that this node has proved.

The program asks a Hub of its own (`hub`), so it sees that commit and nothing else: no network, no token, no other
revision. It runs no script of a dataset: such repos are refused before. Nothing of `datasets` is imported here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfpeer.endpoint.metadata.answer_cache import AnswerCache
from hfpeer.errors import BuildFailed, EntryNotFound, InvalidName, MissingExtra
from hfpeer.manifest import Manifest
from hfpeer.names import Commit, FilePath, RepoId
from hfpeer.node.operations.prepared import program
from hfpeer.node.operations.prepared.hub import hub_of
from hfpeer.prepared.info import source_of
from hfpeer.prepared.layout import SetPlace, dataset_folder
from hfpeer.prepared.listing import folder_bytes
from hfpeer.prepared.manifest import BuiltWith
from hfpeer.system.cancellation import check_stop

POLL_SECONDS = 0.2
PLAN_SECONDS = 300.0
"""Seconds for `datasets` to say which files a config is made of."""
PROBE_SECONDS = 60.0
FINAL_SECONDS = 5.0
"""Seconds for the last line of a program that has ended."""
_VERSIONS = (
    "import importlib.metadata as m, json, sys; print(json.dumps([sys.executable, m.version('datasets'), "
    "m.version('pyarrow'), m.version('huggingface_hub')]))"
)
CARRIED = (
    "Load it where datasets 3.6 or older is installed (`trust_remote_code=True`), then carry the set: "
    "`hfpeer export --prepared` there, `hfpeer import` here. Or take it from a peer: `--trust-peers`."
)
"""How to have a prepared set of a repo whose rows a script makes."""
CARD_FILES = (FilePath("README.md"), FilePath("dataset_infos.json"), FilePath(".huggingface.yaml"))
"""The files from which `datasets` reads the configs of a repo. Source: datasets `load`, `config`."""

OnBytes = Callable[[int], None]
"""Called with the bytes that the build has written until now."""


@dataclass(frozen=True)
class Python:
    """A Python with `datasets` in it."""

    program: str
    datasets: str
    pyarrow: str

    @property
    def version(self) -> tuple[int, int]:
        return version_of(self.datasets)


def version_of(text: str) -> tuple[int, int]:
    """`5.2.0` as (5, 2)."""
    numbers = [int(number) for number in re.findall(r"\d+", text)[:2]]
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (0, 0)


@dataclass(frozen=True)
class BuildPlan:
    """The place of a set, and the files of the commit for each split, as the user's `datasets` says."""

    place: SetPlace
    config_name: str
    builder: str
    splits: Mapping[str, tuple[FilePath, ...]]
    reading: Mapping[str, Any]
    python: Python

    @property
    def files(self) -> tuple[FilePath, ...]:
        return tuple(dict.fromkeys(file for files in self.splits.values() for file in files))


def find_python(environ: Mapping[str, str], chosen: str | None = None) -> Python | None:
    """The Python whose `datasets` the user means: the chosen one, that of the active environment, the first in PATH,
    or the one that runs hfpeer. None if none has it. Raises MissingExtra for a chosen one without it."""
    if chosen is not None:
        found = _probe(os.path.abspath(shutil.which(chosen, path=environ.get("PATH")) or chosen))  # noqa: PTH100 - a link of a venv stays
        if found is None:
            raise MissingExtra(
                f"{chosen} is no Python with `datasets` in it.", hint=f"{chosen} -m pip install datasets"
            )
        return found
    places = [f"{environ[name]}/bin/python" for name in ("VIRTUAL_ENV", "CONDA_PREFIX") if environ.get(name)]
    places += [shutil.which(name, path=environ.get("PATH")) or "" for name in ("python3", "python")]
    tried = dict.fromkeys([place for place in places if place] + [sys.executable])
    return next((found for found in map(_probe, tried) if found is not None), None)


def _probe(place: str) -> Python | None:
    try:
        ran = subprocess.run(
            [place, "-c", _VERSIONS], capture_output=True, text=True, timeout=PROBE_SECONDS, check=False
        )
        found, datasets, pyarrow, _ = json.loads(ran.stdout)
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return Python(place if ran.returncode == 0 else found, datasets, pyarrow)


def no_python() -> MissingExtra:
    """The error for a build without any `datasets`."""
    return MissingExtra(
        "No Python with the `datasets` library was found, and only it can build a prepared set.",
        hint="Activate the environment of your training, name it with `--python`, or: "
        f"{sys.executable} -m pip install 'hfpeer[datasets]'",
    )


def refuse_scripts(manifest: Manifest, hint: str = CARRIED) -> None:
    """Raises InvalidName for a repo whose rows are made by a script: hfpeer runs no code of a repo."""
    script = f"{manifest.repo.name}.py"
    if script in manifest.by_path:
        raise InvalidName(
            f"{manifest.repo} is made by a script, {script}, and hfpeer runs no code of a repo.",
            hint=hint,
            repo=str(manifest.repo),
            script=script,
        )


def plan(
    python: Python,
    manifest: Manifest,
    snapshot: Path,
    hub_cache: Path,
    config: str,
    scratch: Path,
    answers: AnswerCache,
) -> BuildPlan:
    """Asks `datasets` which files a config is made of. Downloads and builds nothing. An answer is kept: of one commit
    one version says the same for ever, and to start it takes seconds.

    Raises EntryNotFound and InvalidName that name the configs, BuildFailed.
    """
    known = known_plan(python, manifest, config, answers)
    if known is not None:
        return known
    with DatasetsProgram(python, manifest, snapshot, hub_cache, config, scratch) as running:
        return running.plan(answers)


def known_plan(python: Python, manifest: Manifest, config: str, answers: AnswerCache) -> BuildPlan | None:
    """The plan that was kept, if there is one."""
    known = answers.load(*_key(python, manifest, config))
    if known is not None:
        with contextlib.suppress(BuildFailed):
            return _plan_of(python, manifest, known)
    return None


def _key(python: Python, manifest: Manifest, config: str) -> tuple[RepoId, Commit, str, _Library]:
    name = f"plan {config} {_program_id()}"
    return manifest.repo, manifest.commit, name, _Library("datasets", python.datasets)


@dataclass(frozen=True)
class _Library:
    """A library in one version, as a giver of answers."""

    kind: str
    url: str


def _program_id() -> str:
    """Another program may ask `datasets` other things."""
    return hashlib.sha256(Path(program.__file__).read_bytes()).hexdigest()[:16]


class DatasetsProgram:
    """One run of the program, over a hub of its own: it plans, and builds if that is wanted. A context manager; at its
    end the program is ended. Building needs no second start of `datasets`, which takes seconds."""

    def __init__(
        self, python: Python, manifest: Manifest, snapshot: Path, hub_cache: Path, config: str, scratch: Path
    ) -> None:
        self._python = python
        self._manifest = manifest
        self._snapshot = snapshot
        self._hub_cache = hub_cache
        self._config = config
        self.scratch = scratch
        self._undo = contextlib.ExitStack()

    def __enter__(self) -> DatasetsProgram:
        with contextlib.ExitStack() as undo:
            endpoint = undo.enter_context(hub_of(self._manifest, self._snapshot))
            self._start(self._environ(endpoint), undo)
            self._undo = undo.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._undo.close()

    def plan(self, answers: AnswerCache) -> BuildPlan:
        """The files that the config is made of. Raises EntryNotFound and InvalidName that name the configs,
        BuildFailed."""
        answer = self._answer("plan", PLAN_SECONDS)
        made = _plan_of(self._python, self._manifest, answer)
        answers.save(*_key(self._python, self._manifest, self._config), answer)
        return made

    def build(self, on_bytes: OnBytes = lambda count: None) -> tuple[BuildPlan, Path, BuiltWith]:
        """Builds the set in `scratch`, after `plan`. Returns its plan, its folder and what built it. Raises
        BuildFailed."""
        with contextlib.suppress(BrokenPipeError):
            os.write(self._orders, b"b")
        answer = self._answer("build", None, on_bytes)
        made = _plan_of(self._python, self._manifest, answer)
        return made, made.place.folder(self.scratch), BuiltWith(answer["datasets"], answer["pyarrow"])

    def _answer(self, job: str, seconds: float | None, on_bytes: OnBytes = lambda count: None) -> dict[str, Any]:
        repo, commit = self._manifest.repo, self._manifest.commit
        line = self._line(seconds, on_bytes)
        try:
            answer = json.loads(line)
        except ValueError:
            errors = self._errors.text()
            raise BuildFailed(
                f"The Python {self._python.program} ended without a result: {errors[-500:] or 'it was killed'}",
                hint="Look at its memory and its disk; then run the command again.",
            ) from None
        if "configs" in answer:
            raise _config_error(repo, self._config, answer)
        if "error" in answer:
            said = f"{answer['error']}: {answer['message'][:1000]}"
            raise BuildFailed(
                f"datasets could not {job} {repo} at {commit.short}: {said}",
                hint=f"It is an answer of the datasets of {self._python.program}. Another version may do: `--python`.",
                trace=answer.get("trace", ""),
            )
        return dict(answer)

    def _line(self, seconds: float | None, on_bytes: OnBytes) -> str:
        """The next answer; empty if the program has ended without one."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while (line := self._answers.line(POLL_SECONDS)) is None:
            check_stop()
            if self._process.poll() is not None:
                return self._answers.line(FINAL_SECONDS) or ""
            if deadline is not None and time.monotonic() > deadline:
                raise BuildFailed(f"datasets did not say within {seconds:g} s what the config is made of.")
            on_bytes(folder_bytes(self.scratch) if seconds is None else 0)
        return line

    def _environ(self, endpoint: str) -> dict[str, str]:
        """The user's environment, but with this Hub only, without tokens and without offline mode."""
        dropped = ("HF_", "HUGGING", "HFPEER_")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
        proxies = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
        kept = {name: value for name, value in kept.items() if name.lower() not in proxies}
        return {
            **kept,
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(self.scratch / "home"),
            "HF_HUB_CACHE": str(self._hub_cache),
            "HF_DATASETS_CACHE": str(self.scratch),
            "HF_MODULES_CACHE": str(self.scratch / "modules"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
            "HF_DATASETS_TRUST_REMOTE_CODE": "0",
            "TOKENIZERS_PARALLELISM": "false",
        }

    def _start(self, environ: Mapping[str, str], undo: contextlib.ExitStack) -> None:
        """Starts the program; `undo` ends it with everything that it started."""
        repo, commit = self._manifest.repo, self._manifest.commit
        order = {"repo": repo.full_name, "commit": commit, "config": self._config, "cache": str(self.scratch)}
        reader, writer = os.pipe()
        is_here, self._orders = os.pipe()
        undo.callback(os.close, self._orders)
        self._answers = _Reading(reader)
        words = [self._python.program, str(Path(program.__file__)), str(writer), str(is_here), json.dumps(order)]
        try:
            self._process = subprocess.Popen(
                words,
                env=dict(environ),
                cwd=self.scratch,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=(writer, is_here),
                start_new_session=True,
            )
        finally:
            os.close(writer)
            os.close(is_here)
        assert self._process.stderr is not None
        self._errors = _Reading(self._process.stderr.fileno(), closes=False)
        undo.callback(self._process.stderr.close)
        undo.callback(self._errors.text)
        undo.callback(_end, self._process)


class _Reading:
    """Reads a pipe to its end in a thread, so that its writer never waits."""

    def __init__(self, fd: int, *, closes: bool = True) -> None:
        self._parts: list[bytes] = []
        self._has_more = threading.Condition()
        self._is_over = False
        self._fd = fd
        self._closes = closes
        self._thread = threading.Thread(target=self._read, daemon=True, name="build-output")
        self._thread.start()

    def _read(self) -> None:
        try:
            while chunk := os.read(self._fd, 65536):
                with self._has_more:
                    self._parts = [*self._parts, chunk][-200:]
                    self._has_more.notify()
        except OSError:
            pass
        finally:
            with self._has_more:
                self._is_over = True
                self._has_more.notify()
            if self._closes:
                os.close(self._fd)

    def line(self, seconds: float) -> str | None:
        """Takes the next whole line; None if there is none within `seconds`."""
        with self._has_more:
            self._has_more.wait_for(lambda: self._is_over or any(b"\n" in part for part in self._parts), seconds)
            line, end, rest = b"".join(self._parts).partition(b"\n")
            if end:
                self._parts = [rest]
        return line.decode("utf-8", "replace") if end else None

    def text(self) -> str:
        self._thread.join(10.0)
        return b"".join(self._parts).decode("utf-8", "replace")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends the program and all that it started."""
    if process.poll() is None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(5.0)
                break
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
    process.wait()


def _plan_of(python: Python, manifest: Manifest, answer: Mapping[str, Any]) -> BuildPlan:
    """The plan in the answer of the program. Raises BuildFailed for names that no set has."""
    repo, commit = manifest.repo, manifest.commit
    try:
        place = SetPlace.parse(dataset_folder(repo), answer["config_id"], answer["version"], answer["hash"])
        splits = {str(split): tuple(_paths(repo, manifest, files)) for split, files in dict(answer["splits"]).items()}
        if place.commit != commit:
            raise ValueError(f"its folder would be named {place.hash}")
        return BuildPlan(place, answer["config_name"], answer["builder"], splits, answer.get("reading", {}), python)
    except (KeyError, ValueError, TypeError, InvalidName) as error:
        raise BuildFailed(f"The plan of datasets {python.datasets} for {repo} cannot be used: {error}.") from error


def _paths(repo: RepoId, manifest: Manifest, files: Sequence[str]) -> Iterator[FilePath]:
    """The paths in the repo of the files that `datasets` names by their addresses."""
    for file in files:
        source = source_of(file)
        if source is None or (source[0], source[1]) != (repo, manifest.commit) or source[2] not in manifest.by_path:
            raise ValueError(f"it names a file that is not of the commit: {file[:200]}")
        yield FilePath(source[2])


def _config_error(repo: RepoId, config: str, answer: Mapping[str, Any]) -> InvalidName | EntryNotFound:
    """The error for a config that is missing or has to be chosen, with those that there are."""
    names = [str(name) for name in answer["configs"]]
    shown = ", ".join(names[:30]) + (" …" if len(names) > 30 else "")
    facts: dict[str, Any] = {"repo": str(repo), "configs": names}
    if not config:
        return InvalidName(
            f"{repo} has {len(names)} configs and no default: name one.", hint=f"`--config` takes: {shown}.", **facts
        )
    if config not in names:
        return EntryNotFound(f"{repo} has no config {config!r}.", hint=f"`--config` takes: {shown}.", **facts)
    return InvalidName(f"datasets refuses the config {config!r} of {repo}: {answer['message'][:500]}", **facts)
