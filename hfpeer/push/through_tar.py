"""The third way of a push: a far end with nothing but sh and tar, and with `sha256sum` if it can verify.

Blobs come into a folder of their own there and are hashed in it; only then they become blobs of the cache, by a rename.
Repos go one by one, so that an interruption costs no more than the links and refs of one.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from shlex import quote

from hfpeer.archive.contents import tree_text
from hfpeer.archive.export import Plan
from hfpeer.archive.have import Have
from hfpeer.archive.headers import END, LINK, header, padded, padding_bytes
from hfpeer.archive.index import ArchivedBlob, ArchivedRevision
from hfpeer.archive.parts import CHUNK_BYTES, SMALL_BYTES
from hfpeer.archive.progress import telling
from hfpeer.cache.disk import layout
from hfpeer.cache.index.inventory import BlobFile
from hfpeer.errors import BrokenCache, CorruptData, NotThisVolume
from hfpeer.language.amounts import counted
from hfpeer.manifest import Manifest
from hfpeer.names import Digest
from hfpeer.push.job import Job, Outcome, check_space, missing_bytes, planned
from hfpeer.push.probe import Host
from hfpeer.push.results import PushedRevision
from hfpeer.push.ssh import Session, Ssh
from hfpeer.system.cancellation import check_stop

STAGING = f"{layout.LOCKS}/.hfpeer-push"
"""The folder there for blobs that are not verified yet, named by their digests."""
TRIES = 2
"""Times that a blob is sent whose bytes are wrong when they are hashed there."""
OPENSSL_MIN_BYTES = 8 * 1024 * 1024
"""From this size on openssl hashes a file, where it is: it takes a third of the CPU time of sha256sum, but a start for
each file."""
_LISTED = re.compile(r"-\S+ +\d+ +\d+ +\d+ +(\d+) .* (\S+)")
"""A line of `ls -ln` for a file: its size and name. Source: POSIX.1-2017, ls."""


@dataclass(frozen=True)
class _There:
    """The sizes of files there: of blobs by folder of a repo and name, and of staged blobs by name."""

    blobs: dict[str, dict[str, int]]
    staged: dict[str, int]


class ThroughTar:
    """One push to a host with tar. For one thread."""

    def __init__(self, ssh: Ssh, host: Host, job: Job) -> None:
        self._ssh = ssh
        self._host = host
        self._job = job
        self._on_progress = telling(job.on_event)
        self._sent_bytes = self._total_bytes = 0

    def bring(self, *, is_dry_run: bool) -> Outcome:
        """Raises SshFailed, NoSpace, CorruptData, BrokenCache, NotThisVolume."""
        there = self._look()
        have = self._have(there)
        if self._job.checks_present and self._host.summer:
            have = Have(have.whole - self._wrong_there(self._job.plan(Have()), there), have.prefixes)
        plan = self._job.plan(have)
        check_space(self._host, missing_bytes(plan))
        is_verified = bool(self._host.summer)
        outcome = Outcome(
            planned(plan),
            len(plan.index.blobs),
            missing_bytes(plan),
            is_verified,
            is_verified and self._job.checks_present,
        )
        if is_dry_run:
            return outcome
        self._total_bytes = missing_bytes(plan)
        kept: dict[str, list[str]] = {}
        for revision, manifest in zip(plan.index.revisions, plan.manifests, strict=True):
            check_stop()
            kept[f"{revision.repo}@{revision.commit}"] = self._bring_revision(plan, revision, manifest, have, there)
        return Outcome(
            tuple(_with_kept(shown, kept[f"{shown.repo}@{shown.commit}"]) for shown in outcome.revisions),
            outcome.sent_blobs,
            outcome.sent_bytes,
            outcome.is_verified,
            outcome.is_present_verified,
        )

    # What is there

    def _look(self) -> _There:
        """Reads the sizes of the blobs of the pushed repos and sets, and of what an interrupted push left."""
        folders = self._job.folders()
        places = [STAGING, *(f"{folder}/blobs" for folder in folders)]
        script = "\n".join(f"echo ={quote(place)}; ls -lnL {quote(place)} 2>/dev/null" for place in places)
        _code, lines = self._ssh.run(f"cd {quote(self._host.cache)} 2>/dev/null || exit 0\n{script}\nexit 0")
        found: dict[str, dict[str, int]] = {place: {} for place in places}
        at = ""
        for line in lines:
            listed = _LISTED.fullmatch(line)
            if line.startswith("=") and line[1:] in found:
                at = line[1:]
            elif at and listed:
                found[at][listed[2]] = int(listed[1])
        staged = found.pop(STAGING)
        return _There({place.rpartition("/")[0]: sizes for place, sizes in found.items()}, staged)

    def _have(self, there: _There) -> Have:
        """What counts as present: blobs of the right size in a pushed repo, and the beginnings of staged ones."""
        wanted = self._job.wanted()
        places = there.blobs.values()
        whole = frozenset(
            digest for digest, size in wanted.items() if any(one.get(digest.hex) == size for one in places)
        )
        kept = {digest: there.staged.get(digest.hex, 0) for digest, size in wanted.items()}
        return Have(whole, {digest: count for digest, count in kept.items() if 0 < count < wanted[digest]})

    def _wrong_there(self, plan: Plan, there: _There) -> frozenset[Digest]:
        """The blobs that are there with wrong bytes."""
        places = {
            f"{folder}/blobs/{blob.digest.hex}": blob
            for blob in plan.index.blobs
            for folder, sizes in there.blobs.items()
            if sizes.get(blob.digest.hex) == blob.size_bytes
        }
        wrong = self._check(".", places)
        for path in wrong:
            folder, _, name = path.partition("/blobs/")
            del there.blobs[folder][name]
        return frozenset(places[path].digest for path in wrong)

    # One revision

    def _bring_revision(
        self,
        plan: Plan,
        revision: ArchivedRevision,
        manifest: Manifest,
        have: Have,
        there: _There,
    ) -> list[str]:
        """Brings a revision or a prepared set. Returns the refs that stay as they are there, as `name commit`."""
        folder = manifest.repo.folder
        here, elsewhere = there.blobs[folder], set[str]()
        blobs = {blob.digest: blob for blob in plan.index.blobs}
        selected = {file.digest for file in self._job.files_of(manifest)}
        new = [blobs[digest] for digest in manifest.sizes if digest in blobs and digest in selected]
        new = [blob for blob in new if here.get(blob.digest.hex) != blob.size_bytes]
        moved = [blob for blob in new if self._holder(there, blob) is None]
        self._stage(plan, moved, there)
        for digest, size_bytes in manifest.sizes.items():
            holder = None if here.get(digest.hex) == size_bytes else _holder(there, digest, size_bytes)
            if digest in selected and holder is not None:
                elsewhere.add(f"{digest.hex} {holder}")
        kept = self._install(revision, manifest, [blob.digest for blob in moved], sorted(elsewhere), have.whole, blobs)
        here.update({blob.digest.hex: blob.size_bytes for blob in new})
        return kept

    @staticmethod
    def _holder(there: _There, blob: ArchivedBlob) -> str | None:
        return _holder(there, blob.digest, blob.size_bytes)

    def _stage(self, plan: Plan, blobs: Sequence[ArchivedBlob], there: _There) -> None:
        """Sends blobs into the staging folder, until they have their bytes there. Raises CorruptData."""
        left = list(blobs)
        for _ in range(TRIES):
            self._send(plan, left, there)
            if not self._host.summer or not left:
                return
            wrong = self._check(STAGING, {blob.digest.hex: blob for blob in left})
            left = [blob for blob in left if blob.digest.hex in wrong]
            there.staged.update({blob.digest.hex: 0 for blob in left})
            if not left:
                return
        names = ", ".join(str(blob.digest) for blob in left[:3])
        raise CorruptData(
            f"{self._host.name} has wrong bytes in {counted(len(left), 'blob')}, also after a second try: {names}.",
            hint=f"Check the disk and the memory of {self._host.name}.",
            digests=[str(blob.digest) for blob in left],
        )

    def _send(self, plan: Plan, blobs: Sequence[ArchivedBlob], there: _There) -> None:
        staged = there.staged
        small = [
            blob for blob in blobs if blob.size_bytes <= SMALL_BYTES and staged.get(blob.digest.hex) != blob.size_bytes
        ]
        if small:
            self._run_tar(_small_members(plan, small, self._note_sent))
        for blob in blobs:
            if blob.size_bytes > SMALL_BYTES:
                self._append(plan.files[blob.digest], staged.get(blob.digest.hex, 0))
        staged.update({blob.digest.hex: blob.size_bytes for blob in blobs})

    def _append(self, blob: BlobFile, kept_bytes: int) -> None:
        """Sends the rest of a blob behind the beginning of it that is there. One that is too long begins anew."""
        if kept_bytes == blob.size_bytes:
            return
        name = f"{STAGING}/{blob.digest.hex}"
        goes_on = 0 < kept_bytes < blob.size_bytes
        script = f"{self._enter()}\ncat {'>>' if goes_on else '>'} {quote(name)}"
        with self._ssh.start(script, lambda line: None) as session:
            fd = blob.open()
            try:
                offset = kept_bytes if goes_on else 0
                while offset < blob.size_bytes:
                    check_stop()
                    count = session.send(fd, offset, min(CHUNK_BYTES, blob.size_bytes - offset))
                    if count == 0:
                        raise CorruptData(f"{blob.path} became shorter while it was sent.", hint="`hfpeer verify`.")
                    offset += count
                    self._note_sent(str(blob.path.name), count)
            finally:
                os.close(fd)
            self._end(session, "write")

    def _note_sent(self, name: str, count: int) -> None:
        self._sent_bytes += count
        self._on_progress(name, self._sent_bytes, self._total_bytes)

    # Programs there

    def _enter(self) -> str:
        """The beginning of a script that works in the cache."""
        cache = quote(self._host.cache)
        return f"mkdir -p {cache} && cd {cache} && mkdir -p {quote(STAGING)} || exit 3"

    def _run_tar(
        self, members: Iterable[bytes], before: str = "", after: str = "", lines: list[str] | None = None
    ) -> None:
        """Unpacks members in the cache there."""
        heard = [] if lines is None else lines
        script = "\n".join([self._enter(), before, f"{quote(self._host.tar)} -xof - || exit 5", after])
        with self._ssh.start(script, heard.append) as session:
            for member in members:
                session.write(member)
            self._end(session, "unpack")

    def _end(self, session: Session, doing: str) -> None:
        code = session.finish()
        if code == 0:
            return
        said = session.errors[-1] if session.errors else f"it ended with code {code}"
        text = "\n".join(session.errors).lower()
        if "symlink" in text or "symbolic" in text or "function not implemented" in text:
            raise NotThisVolume(
                f"The volume of {self._host.cache} of {self._host.name} has no links: {said}",
                hint="With Python 3.8 at the other end a push makes files instead. Or name a folder on another volume.",
                host=self._host.name,
            )
        raise BrokenCache(
            f"{self._host.name} could not {doing} in {self._host.cache}: {said}",
            hint="Check the folder and the space there. The same command goes on from what has arrived.",
            host=self._host.name,
            path=self._host.cache,
        )

    def _check(self, folder: str, blobs: Mapping[str, ArchivedBlob]) -> set[str]:
        """The files, below a folder of the cache, that do not have the sha256 of their blob. Staged ones are removed
        there."""
        enter = f"{self._enter()}\ncd {quote(folder)} || exit 3"
        sums = {path: blob.sha256 for path, blob in blobs.items()}
        is_alone = self._host.summer == self._host.openssl
        large = [path for path, blob in blobs.items() if is_alone or blob.size_bytes >= OPENSSL_MIN_BYTES]
        found = self._openssl_sums(enter, large) if large and self._host.openssl else {}
        right = {path for path, sha256 in found.items() if sums.get(path) == sha256}
        rest = {path: sha256 for path, sha256 in sums.items() if path not in found}
        if rest and not is_alone:
            option = "-a 256 -c -" if self._host.summer.endswith("shasum") else "-c -"
            body = "".join(f"{sha256}  {path}\n" for path, sha256 in rest.items()).encode()
            _code, lines = self._ssh.run(f"{enter}\n{quote(self._host.summer)} {option} 2>/dev/null", body)
            right |= {line[: -len(": OK")] for line in lines if line.endswith(": OK")}
        wrong = sums.keys() - right
        if wrong and folder == STAGING:
            script = f'{enter}\nwhile IFS= read -r f; do rm -f "$f"; done'
            self._ssh.run(script, "".join(f"{path}\n" for path in wrong).encode())
        return set(wrong)

    def _openssl_sums(self, enter: str, paths: Iterable[str]) -> dict[str, str]:
        """By path: the sha256 of those files that openssl has read. It starts for each."""
        script = f'{enter}\nwhile IFS= read -r f; do {quote(self._host.openssl)} dgst -sha256 -r "$f" 2>/dev/null; done'
        _code, lines = self._ssh.run(script, "".join(f"{path}\n" for path in paths).encode())
        parts = (line.partition(" ") for line in lines)
        return {path.lstrip("* "): sha256 for sha256, _, path in parts if len(sha256) == 64}

    def _install(
        self,
        revision: ArchivedRevision,
        manifest: Manifest,
        moved: Sequence[Digest],
        elsewhere: Sequence[str],
        whole: frozenset[Digest],
        blobs: dict[Digest, ArchivedBlob],
    ) -> list[str]:
        """Makes staged blobs those of the repo, then its links, its proof and listing, and last its refs. Returns the
        refs that stay, as `name commit`."""
        folder, names = manifest.repo.folder, secrets.token_hex(6)
        before = f"""
mkdir -p {quote(folder)}/blobs || exit 3
while IFS= read -r h && [ -n "$h" ]; do mv -f {quote(STAGING)}/"$h" {quote(folder)}/blobs/"$h" || exit 4; done
while IFS=' ' read -r h d && [ -n "$h" ]; do
  ln -f "$d/blobs/$h" {quote(folder)}/blobs/"$h" 2>/dev/null || cp "$d/blobs/$h" {quote(folder)}/blobs/"$h" || exit 4
done"""
        after = []
        for number, ref in enumerate(revision.refs):
            staged, path = quote(f"{STAGING}/{names}.{number}"), f"{folder}/refs/{ref.name}"
            place, around = quote(path), quote(path.rpartition("/")[0])
            after.append(
                f'if [ -f {place} ] && [ "$(cat {place})" != {revision.commit} ] && [ {place} -nt {staged} ]; then '
                f"echo {quote(ref.name)} $(cat {place}); rm -f {staged}; "
                f"else mkdir -p {around} && mv -f {staged} {place} || exit 4; fi"
            )
        after.append(f"rmdir {quote(STAGING)} 2>/dev/null; exit 0")
        lists = "".join(f"{digest.hex}\n" for digest in moved) + "\n" + "".join(f"{one}\n" for one in elsewhere) + "\n"
        present = whole.union(blobs)
        members = self._members(revision, manifest, present, names)
        kept: list[str] = []
        self._run_tar([lists.encode(), *members], before, "\n".join(after), kept)
        return kept

    def _members(
        self, revision: ArchivedRevision, manifest: Manifest, present: frozenset[Digest], names: str
    ) -> Iterator[bytes]:
        folder, commit = manifest.repo.folder, manifest.commit

        def file(path: str, content: bytes, at: int = revision.asked_at) -> bytes:
            return header(path, len(content), at) + padded(content)

        if revision.is_proved:
            yield file(f"{folder}/{layout.PROOFS}/{commit}.json", manifest.to_json().encode())
        yield file(f"{folder}/trees/{commit}.json", tree_text(manifest.files))
        for absent in revision.absent:
            yield file(f"{folder}/{layout.ABSENCES}/{commit}/{absent}", b"")
        for one in self._job.files_of(manifest):
            if one.digest in present:
                target = layout.link_target(one.path, one.digest)
                yield header(f"{folder}/snapshots/{commit}/{one.path}", 0, revision.asked_at, LINK, target)
        for number, ref in enumerate(revision.refs):
            yield file(f"{STAGING}/{names}.{number}", commit.encode(), ref.answered_at)
        yield END


def _holder(there: _There, digest: Digest, size_bytes: int) -> str | None:
    """The folder of a repo there that has a blob."""
    return next((folder for folder, sizes in there.blobs.items() if sizes.get(digest.hex) == size_bytes), None)


def _with_kept(shown: PushedRevision, kept: Sequence[str]) -> PushedRevision:
    names = {ref.partition(" ")[0] for ref in kept}
    return replace(shown, refs=tuple(ref for ref in shown.refs if ref not in names), kept_refs=tuple(kept))


def _small_members(plan: Plan, blobs: Sequence[ArchivedBlob], on_sent: Callable[[str, int], None]) -> Iterator[bytes]:
    for blob in blobs:
        with open(plan.files[blob.digest].open(), "rb", buffering=0) as file:
            body = file.read(blob.size_bytes)
        yield header(f"{STAGING}/{blob.digest.hex}", len(body), plan.index.made_at) + body
        yield b"\0" * padding_bytes(len(body))
        on_sent(blob.digest.hex, len(body))
    yield END
