"""The clients, each with what it does. A client is a function that takes a `Job` and raises `Wrong`."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from .content import BIG, EMPTY, ODD, ODDER, sha256
from .environments import RUNNING, NotRun
from .job import Job, equal

Act = Callable[[Job], None]
PART = "nested/weights/part-00001.safetensors"


@dataclass(frozen=True)
class Client:
    """A row of the table. `made_by` are the words for the script that makes its repo's content, else it is the zoo,
    without what the client `leaves_out` because it takes it from no hub."""

    name: str
    does: str
    act: Act
    environment: str | None = None
    programs: tuple[str, ...] = ()
    kind: str = "model"
    made_by: tuple[str, ...] = ()
    leaves_out: tuple[str, ...] = ()
    note: str = ""

    @property
    def slug(self) -> str:
        """Its repo's name on the hub."""
        return re.sub(r"[^a-z0-9]+", "-", f"{self.name} {self.does}".lower())[:60].strip("-")

    def require(self) -> None:
        """Raises NotRun when a program is missing."""
        for program in self.programs:
            if shutil.which(program) is None:
                raise NotRun(f"there is no {program} on this machine")


# huggingface_hub


def downloads(with_xet: bool) -> Act:
    def act(job: Job) -> None:
        told = job.script("hub_download.py", job.repo, ODD)
        equal(told["has_xet"], with_xet, "hf_xet")
        equal(told["one"], job.place.digests[ODD], ODD)
        job.has_all(told["files"])

    return act


def reads_files(job: Job) -> None:
    whole, start, size = job.place.files[BIG], 5_000_000, 300_000
    told = job.script("file_system.py", job.repo, BIG, str(start), str(size))
    top = {path.split("/")[0] for path in job.place.files}
    wanted = {
        "ls": sorted(f"{job.repo}/{name}" for name in top),
        "glob": sorted(f"{job.repo}/{path}" for path in (BIG, PART)),
        "size": len(whole),
        "middle": whole[start : start + size].hex(),
        "end": whole[-5:].hex(),
        "exists": [True, False],
    }
    equal(told, wanted, "answers of the file system")


def asks(job: Job) -> None:
    place, digest = job.place, job.place.digests[BIG]
    size_bytes = len(place.files[BIG])
    folders = {"/".join(path.split("/")[:depth]) for path in place.files for depth in range(1, path.count("/") + 1)}
    wanted = {
        "sha": place.commit,
        "files": sorted(place.files),
        "large": [size_bytes, digest, size_bytes],
        "tree": sorted({*place.files, *folders}),
        "paths": [[BIG, size_bytes]],
        "branches": [["main", place.commit]],
        "latest": place.commit,
        "exists": [True, True, False],
        "metadata": [place.commit, digest, size_bytes],
    }
    equal(job.script("api_questions.py", job.repo, BIG, place.commit), wanted, "answers")


def javascript(job: Job) -> None:
    whole, start, stop = job.place.files[BIG], 1_000_000, 1_300_000
    cache = job.folder / "cache"
    told = job.script("javascript.cjs", job.endpoint, job.repo, BIG, str(start), str(stop), str(cache))
    equal([told["sha"], told["whole"]], [job.place.commit, job.place.digests[BIG]], "commit and file")
    equal(told["part"], sha256(whole[start:stop]), "the part")
    job.has_all(told["files"])


def command_line(job: Job) -> None:
    hf = job.tool("hf")
    job.run(hf, "download", job.repo)
    job.has_all(job.snapshot)
    job.run(hf, "cache", "verify", job.repo)
    told = json.loads(job.run(hf, "models", "info", job.repo))
    equal([told["id"], told["sha"]], [job.repo, job.place.commit], "models info")


def old_command_line(job: Job) -> None:
    hf = job.tool("hf")
    job.run(hf, "download", job.repo)
    job.has_all(job.snapshot)
    equal("main" in job.run(hf, "repo", "tag", "list", job.repo), False, "tags")


# What stands on it


def transformers(job: Job) -> None:
    equal(job.script("tiny_model.py", "load", job.repo), job.place.expected, "config, tokens and tensors")
    job.has_some(job.snapshot)


def reads_rows(verb: str, form: str) -> Act:
    def act(job: Job) -> None:
        equal(job.script("dataset_rows.py", verb, form, job.repo), job.place.expected, "rows")
        if verb == "load":
            job.has_some(job.snapshot)

    return act


def reads_table(job: Job) -> None:
    equal(job.script("table_rows.py", job.repo), job.place.expected, "rows")


# Programs that know only HTTP


def curl(job: Job) -> None:
    whole, out, url = job.place.files[BIG], job.folder / "out", job.url(BIG)
    etag = f'"{job.place.digests[BIG]}"'
    fetch = ("curl", "-sSfL", "-o", out)
    for asked, part in (("1000000-1999999", whole[1_000_000:2_000_000]), ("-5", whole[-5:])):
        job.run(*fetch, "-r", asked, url)
        equal(out.read_bytes() == part, True, f"range {asked}")
    job.run(*fetch, "-r", "10-19", "-H", f"If-Range: {etag}", url)
    equal(out.read_bytes(), whole[10:20], "If-Range with the etag")
    job.run(*fetch, "-r", "10-19", "-H", 'If-Range: "another"', url)
    job.has_file(out, BIG)
    equal(job.run(*fetch, "-w", "%{http_code}", "-H", f"If-None-Match: {etag}", url), "304", "If-None-Match")
    out.unlink()
    job.run(*fetch, "-r", "0-2999999", url)
    job.run(*fetch, "-C", "-", url)
    job.has_file(out, BIG)
    job.run(*fetch, job.url(ODD))
    job.has_file(out, ODD)


def aria2(job: Job) -> None:
    job.run("aria2c", "-q", "-x8", "-s8", "-k1M", "-d", job.folder, "-o", "out", job.url(BIG))
    job.has_file(job.folder / "out", BIG)


def wget(job: Job) -> None:
    out = job.folder / "out"
    out.write_bytes(job.place.files[BIG][:3_000_000])
    job.run("wget", "-q", "-c", "-O", out, job.url(BIG))
    job.has_file(out, BIG)


def listing_and_aria2(job: Job) -> None:
    told = json.loads(job.run("curl", "-sSf", f"{job.endpoint}/api/models/{job.repo}/revision/main"))
    names = [sibling["rfilename"] for sibling in told["siblings"]]
    lines = [f"{job.url(name)}\n  dir={job.folder / 'got'}\n  out={name}\n" for name in names]
    orders = job.folder / "orders"
    orders.write_text("".join(lines))
    job.run("aria2c", "-q", "-x4", "-s4", "-k1M", "-j5", "-c", "-i", orders)
    job.has_all(job.folder / "got")


def llama_cpp(job: Job) -> None:
    told = job.script("plain_resume.py", job.endpoint, job.repo, BIG)
    equal(told, {"size": len(job.place.files[BIG]), "sha256": job.place.digests[BIG]}, BIG)


# git


def git(*words: str) -> Act:
    def act(job: Job) -> None:
        tree = job.folder / "tree"
        _with_lfs(job)
        job.run("git", "clone", "-q", *words, f"{job.endpoint}/{job.repo}", tree)
        job.has_all(tree)
        equal(job.run("git", "-C", tree, "rev-parse", "HEAD").strip(), job.place.commit, "HEAD")
        job.run("git", "-C", tree, "fsck", "--no-progress")

    return act


def git_lfs_pull(job: Job) -> None:
    tree = job.folder / "tree"
    _with_lfs(job)
    job.run("git", "-c", "filter.lfs.smudge=", "-c", "filter.lfs.process=", "-c", "filter.lfs.required=false", "clone",
            "-q", f"{job.endpoint}/{job.repo}", tree)  # fmt: skip
    equal((tree / BIG).stat().st_size < 1000, True, "a pointer before the pull")
    job.run("git", "-C", tree, "lfs", "pull")
    job.has_all(tree)


def _with_lfs(job: Job) -> None:
    """The lines that `git lfs install` writes into a user's settings."""
    settings = ['[filter "lfs"]', "clean = git-lfs clean -- %f", "smudge = git-lfs smudge -- %f"]
    settings += ["process = git-lfs filter-process", "required = true"]
    (job.folder / ".gitconfig").write_text("\n".join(settings) + "\n")


VERSIONS = {"2.x": "huggingface_hub 2", "1.x": "huggingface_hub 1", "0.36": "huggingface_hub 0.36"}
NO_VERIFY = "it has neither `cache verify` nor `models info`; `repo tag list` in their place"


def _hub_clients() -> Iterable[Client]:
    for environment, name in VERSIONS.items():
        yield Client(name, "download, hf_xet installed", downloads(True), environment)
        yield Client(name, "download, no hf_xet", downloads(False), f"{environment} plain")
        yield Client(name, "HfApi: info, files, tree, paths, refs, commits, HEAD, a file", asks, environment)
        yield Client(name, "HfFileSystem: ls, glob, info, open and seek", reads_files, environment)
    for environment, name in VERSIONS.items():
        cli = name.replace("huggingface_hub", "`hf`")
        if environment == "0.36":
            yield Client(cli, "download, tags", old_command_line, environment, note=NO_VERIFY)
        else:
            yield Client(cli, "download, cache verify, models info", command_line, environment)


CLIENTS: tuple[Client, ...] = (
    *_hub_clients(),
    Client(
        "@huggingface/hub",
        "JavaScript: list, slice, snapshot, info",
        javascript,
        "JavaScript",
        leaves_out=(ODD, ODDER, EMPTY),
        note="it quotes no path and takes no empty file; those are left out",
    ),
    Client("transformers", "config, tokenizer, model", transformers, RUNNING, made_by=("tiny_model.py", "make")),
    *(
        Client(
            "datasets",
            f"{words} {form}",
            reads_rows(verb, form),
            "datasets",
            (),
            "dataset",
            ("dataset_rows.py", "make", form),
        )
        for words, verb, form in (
            ("load", "load", "parquet"),
            ("load", "load", "jsonl"),
            ("stream", "stream", "parquet"),
        )
    ),
    Client(
        "pandas",
        "read_parquet of hf://",
        reads_table,
        "datasets",
        (),
        "dataset",
        ("dataset_rows.py", "make", "parquet"),
    ),
    Client("curl", "ranges, If-Range, resume", curl, programs=("curl",)),
    Client("aria2c", "-x8 -s8", aria2, programs=("aria2c",)),
    Client("wget", "resume", wget, programs=("wget",)),
    Client("listing and aria2c", "what hfd.sh does", listing_and_aria2, programs=("curl", "aria2c")),
    Client(
        "llama.cpp's requests",
        "refs, tree, HEAD, GET, the rest",
        llama_cpp,
        note="its requests in its order, not the program",
    ),
    Client("git", "clone, LFS files with it", git(), programs=("git", "git-lfs")),
    Client("git", "clone --depth 1", git("--depth", "1"), programs=("git", "git-lfs")),
    Client("git-lfs", "clone without LFS files, then lfs pull", git_lfs_pull, programs=("git", "git-lfs")),
)
