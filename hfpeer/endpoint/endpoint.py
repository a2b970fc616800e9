"""The node as a Hub for one caller after the other: who may, what a revision is, what it holds, its files.

Everything at a commit is answered from here once it is known. What a name means is asked again after a while; when
nobody can be asked, the newest answer is given with its age, or refused, as the owner wishes.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

from hfpeer.cache.store import Store
from hfpeer.endpoint import answers
from hfpeer.endpoint.answers import Json, Listing
from hfpeer.endpoint.callers import Admission, Caller, Verdicts
from hfpeer.endpoint.files import Files
from hfpeer.endpoint.kept import KeptAnswers
from hfpeer.endpoint.keptpacks import KeptPacks, PackKeeper
from hfpeer.endpoint.once import Once, Recent
from hfpeer.endpoint.reading import Reading
from hfpeer.errors import HfpeerError, HubUnreachable, InvalidName, NotFound, Unreachable
from hfpeer.lan import Lan
from hfpeer.manifest import Manifest, ManifestFile
from hfpeer.names import Commit, RepoId, Revision
from hfpeer.resolving import Resolution, Resolver
from hfpeer.transfer.events import Event
from hfpeer.transfer.fetches import Fetches
from hfpeer.transfer.scout import Scout
from hfpeer.transfer.sources import UpstreamSource, WantedBlob
from hfpeer.upstream.hubs import Hubs
from hfpeer.upstream.passage import Passage

MAX_LISTED_FILES = 200_000
"""As many files of listings are kept in memory together."""
MAX_REFS = 10_000
MAX_NOTED = 200
"""So many refs of a listing of all of them are noted."""
MAX_LEARNT_BYTES = 16 * 1024 * 1024
LEARNT_AT_ONCE = 64
"""The largest plain file that is taken out of a pack, and how many are kept at a time."""
MAX_TOKENS = 64
PATIENCE_FOR_REFS_SECONDS = 4.0
"""How long the hubs may take to say what a name means, where an old answer is known: clients wait ten seconds."""
OUTAGE_SECONDS = 10.0
"""How long an old answer is given before the hubs are tried again."""


@dataclass(frozen=True)
class Rules:
    """What the owner has set. Times in seconds."""

    ref_seconds: float = 60.0
    stale_refs: Literal["serve", "refuse"] = "serve"
    offline_seconds: float = 7 * 86400.0
    trusts_attested: bool = False
    patience_seconds: float = 60.0


@dataclass(frozen=True)
class Seen:
    """A revision that a caller may see: what its name meant when it was asked, and what it holds."""

    caller: Caller
    resolution: Resolution
    listing: Listing
    asked_at: float | None

    @property
    def manifest(self) -> Manifest:
        return self.listing.manifest

    @property
    def repo(self) -> RepoId:
        return self.manifest.repo

    @property
    def commit(self) -> Commit:
        return self.resolution.commit


@dataclass(frozen=True)
class Document:
    """An answer of a hub, now ours. `following` is the query of the next page, `total` how many there are in all."""

    content: Any
    following: str | None = None
    total: str | None = None


@dataclass(frozen=True)
class Refs:
    """All refs of a repo, as the Hub lists them. They are not current when no hub could be asked."""

    document: Json
    age_seconds: float
    is_current: bool = True


class Endpoint:
    """Belongs to the node's event loop. `passage` is for what nobody here knows."""

    def __init__(
        self,
        store: Store,
        fetches: Fetches,
        resolver: Resolver,
        lan: Lan,
        hubs: Hubs,
        rules: Rules,
    ) -> None:
        self._store = store
        self._resolver = resolver
        self._lan = lan
        self._hubs = hubs
        self._rules = rules
        self._once = Once()
        self._kept = KeptAnswers(store.home / "answers")
        self.packs = KeptPacks(store.home / "packs")
        self._admission = Admission(
            store,
            Verdicts(Path(store.home) / "verdicts.json"),
            self._once,
            lan.shares,
            offline_seconds=rules.offline_seconds,
        )
        self._acting: Recent[str, Hubs] = Recent(MAX_TOKENS)
        self._refs: Recent[tuple[RepoId, Revision], tuple[float, Resolution]] = Recent(MAX_REFS)
        self._written: Recent[tuple[RepoId, Revision], Commit] = Recent(MAX_REFS)
        self._listings: Recent[tuple[RepoId, Commit], Listing] = Recent(MAX_LISTED_FILES, _weight)
        self.passage = Passage(hubs.upstreams)
        self.files = Files(store, fetches, lan.blame, self._installed, patience_seconds=rules.patience_seconds)

    async def stop(self) -> None:
        """Ends what is under way for callers and closes what leads through to the hubs."""
        await self.files.stop()
        await self._once.stop()
        await self.passage.aclose()

    # Revisions

    async def look(self, caller: Caller, repo: RepoId, revision: Revision, *, wants_files: bool) -> Seen:
        """A revision as this caller may see it.

        Raises RepoNotFound, GatedRepo, AccessDenied, RevisionNotFound, and HubUnreachable when nobody knows.
        """
        await self.admit(caller, repo, wants_files=wants_files)
        resolution, asked_at = await self._resolve(caller, repo, revision)
        return Seen(caller, resolution, await self._listing(caller, repo, resolution.commit), asked_at)

    async def admit(self, caller: Caller, repo: RepoId, *, wants_files: bool) -> None:
        """Returns if the caller may; see `Admission.admit`."""
        await self._admission.admit(caller, repo, self.hubs_for(caller), wants_files=wants_files)

    def hubs_for(self, caller: Caller) -> Hubs:
        """The hubs with the caller's token, never with the node's own."""
        hubs = self._acting.get(caller.fingerprint)
        if hubs is None:
            hubs = self._hubs.acting_for(caller.token)
            self._acting.put(caller.fingerprint, hubs)
        return hubs

    async def _resolve(self, caller: Caller, repo: RepoId, revision: Revision) -> tuple[Resolution, float | None]:
        """What a revision means, and when it was asked (on the monotonic clock)."""
        if revision.is_commit:
            return Resolution(Commit(revision), "the commit id itself"), None
        known = self._refs.get((repo, revision))
        if known is not None and time.monotonic() - known[0] < self._lifetime(known[1]):
            return self._unless_too_old(repo, revision, known[1]), known[0]
        if await asyncio.to_thread(self._store.is_published, repo):
            return await self._resolver.local_commit(repo, revision), None
        asking = self._once.begin((repo, revision, caller.fingerprint), lambda: self._ask(caller, repo, revision))
        await asyncio.wait([asking], timeout=PATIENCE_FOR_REFS_SECONDS)
        if not asking.done():
            remembered = await self._resolver.remembered(repo, revision, asks_peers=True)
            if remembered is not None:
                return self._unless_too_old(repo, revision, remembered), time.monotonic()
        resolution = await asyncio.shield(asking)
        return self._unless_too_old(repo, revision, resolution), time.monotonic()

    def _lifetime(self, resolution: Resolution) -> float:
        if resolution.age_seconds is None:
            return self._rules.ref_seconds
        return min(OUTAGE_SECONDS, self._rules.ref_seconds)

    def _unless_too_old(self, repo: RepoId, revision: Revision, resolution: Resolution) -> Resolution:
        if resolution.age_seconds is None or self._rules.stale_refs == "serve":
            return resolution
        raise HubUnreachable(
            f"No hub says what {revision} of {repo} is now; it was {resolution.commit.short} "
            f"{resolution.age_seconds:.0f} s ago.",
            hint=f"Ask for {resolution.commit}, or allow old answers: hfpeer conf set endpoint.stale_refs serve.",
        )

    async def _ask(self, caller: Caller, repo: RepoId, revision: Revision) -> Resolution:
        """Asks the hubs, which tell all about the repo with it; else whoever remembers."""
        try:
            told, name = await self.hubs_for(caller).answer(repo, f"/revision/{quote(revision, safe='')}", revision)
            commit = Commit.parse(str(told.document.get("sha")))
        except (Unreachable, InvalidName, AttributeError) as error:
            remembered = await self._resolver.remembered(repo, revision, asks_peers=True)
            if remembered is None:
                raise error if isinstance(error, HfpeerError) else HubUnreachable("A hub answers nonsense.") from error
            resolution = remembered
        else:
            await asyncio.to_thread(self._remember, repo, revision, commit, name, told.document)
            resolution = Resolution(commit, name)
        self._refs.put((repo, revision), (time.monotonic(), resolution))
        return resolution

    def _remember(self, repo: RepoId, revision: Revision, commit: Commit, name: str, document: Json) -> None:
        self._store.write_ref(repo, revision, commit, name)
        self._keep_facts(repo, commit, document)

    async def _listing(self, caller: Caller, repo: RepoId, commit: Commit) -> Listing:
        known = self._listings.get((repo, commit))
        if known is None:
            # What is under a commit is the same whoever asks, but only some can get it from a hub.
            key = ("listing", repo, commit, caller.fingerprint)
            known = await self._once.ask(key, lambda: self._find_listing(caller, repo, commit))
            self._listings.put((repo, commit), known)
        return known

    async def _find_listing(self, caller: Caller, repo: RepoId, commit: Commit) -> Listing:
        await self._lan.greet(commit)
        found = await self._resolver.listing(
            repo,
            commit,
            self.hubs_for(caller),
            _ignore,
            asks_peers=True,
            trusts_peers=self._rules.trusts_attested,
        )
        listing = Listing(found.manifest)
        await asyncio.to_thread(lambda: listing.entries)
        return listing

    # What is said about a revision

    async def info(self, seen: Seen, *, with_blobs: bool, fields: Iterable[str] = ()) -> Json:
        """What the API says of the repo at this commit; with `fields` only those."""
        fields = list(fields)
        facts = await self._facts(seen)
        unknown = {*fields} - {*facts, "siblings", "sha"}
        if unknown:
            facts = {**facts, **await self._rare_facts(seen, unknown)}
        document = await asyncio.to_thread(answers.info, seen.manifest, facts, with_blobs=with_blobs)
        return answers.expanded(document, fields) if fields else document

    async def _facts(self, seen: Seen) -> Mapping[str, Any]:
        kept = await asyncio.to_thread(self._kept.load, seen.repo, seen.commit, "info")
        return kept if isinstance(kept, dict) else await self._more_facts(seen, ())

    async def _rare_facts(self, seen: Seen, fields: set[str]) -> Json:
        """Fields that not every repo has, asked of a hub once: one that it leaves out is not asked for again."""
        asked = set(await asyncio.to_thread(self._kept.load, seen.repo, seen.commit, "fields") or ())
        if fields <= asked:
            return {}
        told = await self._more_facts(seen, sorted(fields))
        if told:
            await asyncio.to_thread(self._kept.save, seen.repo, seen.commit, "fields", sorted(fields | asked))
        return told

    async def _more_facts(self, seen: Seen, fields: Iterable[str]) -> Json:
        """Asks a hub; nothing when none can be asked or knows the commit."""
        query = "&".join(f"expand={quote(name, safe='')}" for name in fields)
        rest = f"/revision/{seen.commit}" + (f"?{query}" if query else "")
        try:
            told, _ = await self.hubs_for(seen.caller).answer(seen.repo, rest, seen.commit)
        except (Unreachable, NotFound):
            return {}
        if not isinstance(told.document, dict):
            return {}
        return await asyncio.to_thread(self._keep_facts, seen.repo, seen.commit, told.document)

    def _keep_facts(self, repo: RepoId, commit: Commit, document: Json) -> Json:
        known = self._kept.load(repo, commit, "info")
        facts = {**(known if isinstance(known, dict) else {}), **answers.facts_of(document)}
        self._kept.save(repo, commit, "info", facts)
        return facts

    async def told(self, seen: Seen, rest: str) -> Document:
        """What a hub says of the repo at this commit under `/api/{type}s/{id}{rest}`, asked once for ever.

        Raises the errors of `Hubs.answer`.
        """
        kept = await asyncio.to_thread(self._kept.load, seen.repo, seen.commit, rest)
        if kept is not None:
            return Document(**kept)
        hubs = self.hubs_for(seen.caller)
        told, _ = await self._once.ask(
            (seen.repo, rest, seen.caller.fingerprint), lambda: hubs.answer(seen.repo, rest, seen.commit)
        )
        document = _document(answers.without_xet(told.document), told.headers)
        await asyncio.to_thread(self._kept.save, seen.repo, seen.commit, rest, vars(document))
        return document

    async def refs(self, caller: Caller, repo: RepoId, *, asks_anew: bool = False) -> Refs:
        """All refs of a repo; with `asks_anew` whatever is remembered. Raises HubUnreachable when nobody knows any."""
        await self.admit(caller, repo, wants_files=False)
        key = ("refs", repo, caller.fingerprint, asks_anew)
        return await self._once.ask(key, lambda: self._ask_refs(caller, repo, asks_anew))

    async def _ask_refs(self, caller: Caller, repo: RepoId, asks_anew: bool) -> Refs:
        kept = await asyncio.to_thread(self._kept.load, repo, _NO_COMMIT, "refs")
        age = max(0.0, time.time() - kept["at"]) if kept else 0.0
        if kept and not asks_anew and not kept.get("is_old") and age < self._rules.ref_seconds:
            return Refs(kept["refs"], age)
        try:
            told, name = await self.hubs_for(caller).answer(repo, "/refs?include_prs=1")
            document = _checked_refs(told.document, name)
        except (Unreachable, NotFound) as error:
            if isinstance(error, NotFound) and not await asyncio.to_thread(self._store.is_published, repo):
                raise
            known = await self._known_refs(caller, repo, kept)
            if not known["branches"]:
                raise
            return Refs(known, age, is_current=False)
        await asyncio.to_thread(self._kept.save, repo, _NO_COMMIT, "refs", {"at": time.time(), "refs": document})
        await self._note_names(repo, document, name)
        return Refs(document, 0.0)

    async def forget_names(self, repo: RepoId) -> None:
        """Somebody may have changed the repo through here: what its names mean is asked again."""
        for key in [key for key, _ in self._refs.items() if key[0] == repo]:
            self._refs.drop(key)
        kept = await asyncio.to_thread(self._kept.load, repo, _NO_COMMIT, "refs")
        if kept:
            await asyncio.to_thread(self._kept.save, repo, _NO_COMMIT, "refs", {**kept, "is_old": True})

    async def _note_names(self, repo: RepoId, document: Json, answered_by: str) -> None:
        """Refs that were told together are known as if each had been asked for; peers are told what main is."""
        for ref in [*document["branches"], *document["tags"]][:MAX_NOTED]:
            with contextlib.suppress(InvalidName):
                revision, commit = Revision.parse(ref["name"]), Commit.parse(ref["targetCommit"])
                self._refs.put((repo, revision), (time.monotonic(), Resolution(commit, answered_by)))
                if revision == "main":
                    await asyncio.to_thread(self._store.write_ref, repo, revision, commit, answered_by)

    async def _known_refs(self, caller: Caller, repo: RepoId, kept: Json | None) -> Json:
        """The refs that a hub once listed, and those of what is in the cache or was asked for since."""
        moment = kept["at"] if kept else 0.0
        document = kept["refs"] if kept else _checked_refs({}, "nobody")
        newer = await asyncio.to_thread(self._named_since, repo, moment)
        with contextlib.suppress(Unreachable, NotFound):
            # Peers are not asked for all refs, but for what one is: that of which every tool asks.
            main = (await self._resolve(caller, repo, Revision("main")))[0]
            if time.time() - (main.age_seconds or 0.0) >= moment:
                newer["main"] = main.commit
        tags = {tag["name"] for tag in document["tags"]}
        branches = {branch["name"]: branch["targetCommit"] for branch in document["branches"]}
        branches |= {name: newer[name] for name in newer.keys() - tags if not name.startswith("refs/")}
        shown = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": commit} for n, commit in branches.items()]
        return {**document, "branches": shown}

    def _named_since(self, repo: RepoId, moment: float) -> dict[str, Commit]:
        """What names were after that moment (seconds since the epoch), of those in the cache or asked for."""
        known = {key[1]: resolution.commit for key, (_, resolution) in self._refs.items() if key[0] == repo}
        for name in {Revision(name) for revision in self._store.revisions(repo) for name in revision.refs} | set(known):
            told = self._store.read_ref(repo, name)
            if told is not None:
                known[name] = told[0]
                if told[1] <= moment:
                    del known[name]
        return {str(name): commit for name, commit in known.items()}

    # Commits

    async def listed(self, repo: RepoId) -> list[Commit]:
        """The commits whose files are known here, the newest known first."""
        return await asyncio.to_thread(self._store.listed, repo)

    async def obtainable(self, repo: RepoId, blobs: Collection[str] = ()) -> frozenset[Commit]:
        """The commits whose plain files can all be had without a hub: they are here or among `blobs` (ids in hex), or
        a peer has the commit."""
        listed = await self.listed(repo)
        return self._lan.commits(repo).union(await asyncio.to_thread(self._whole, repo, listed, blobs))

    def _whole(self, repo: RepoId, commits: Iterable[Commit], blobs: Collection[str]) -> list[Commit]:
        manifests = filter(None, (self._store.load_manifest(repo, commit) for commit in commits))
        plain = {manifest.commit: [file for file in manifest.files if not file.is_lfs] for manifest in manifests}
        return [commit for commit, files in plain.items() if self._has_all(repo, files, blobs)]

    def _has_all(self, repo: RepoId, files: Iterable[ManifestFile], blobs: Collection[str]) -> bool:
        missing = (file for file in self._store.missing(files) if file.blob_id not in blobs)
        return all(self._store.find_blob(file.digest, repo) is not None for file in missing)

    async def is_at_peers(self, repo: RepoId, commits: Iterable[str]) -> bool:
        """Whether peers have one of these commits."""
        return not self._lan.commits(repo).isdisjoint(map(Commit, commits))

    async def missing(self, files: Iterable[ManifestFile]) -> list[ManifestFile]:
        """Those of these files that are not in the cache."""
        return await asyncio.to_thread(self._store.missing, list(files))

    def learn(self, caller: Caller, repo: RepoId, commit: str, keeper: PackKeeper) -> None:
        """Begins to put the plain files that a passing pack has brought into the cache, where peers find them too."""
        self._once.begin(("learn", repo, commit), lambda: self._learn(caller, repo, Revision(commit), keeper))

    async def _learn(self, caller: Caller, repo: RepoId, commit: Revision, keeper: PackKeeper) -> None:
        try:
            path = await asyncio.to_thread(keeper.close)
            if path is not None:
                seen = await self.look(caller, repo, commit, wants_files=True)
                await asyncio.to_thread(self._take_out, seen, path)
                await self._installed(repo, seen.commit)
        finally:
            keeper.remove()

    def _take_out(self, seen: Seen, pack: Path) -> None:
        plain = [file for file in seen.manifest.files if not file.is_lfs]
        wanted = {it.blob_id: it for it in self._store.missing(plain) if it.size_bytes <= MAX_LEARNT_BYTES}
        found = ((wanted[id].digest, body) for id, body in self.packs.blobs(pack, wanted))
        while batch := list(islice(found, LEARNT_AT_ONCE)):
            self._store.publish_small(seen.repo, batch)
        unfit = {file.digest for file in self._store.missing(plain)}
        unfit |= {blob.digest for blob in self._store.unverified_of(plain)}
        self._store.install(seen.repo, seen.commit, [file for file in plain if file.digest not in unfit])

    # Files

    async def read(self, seen: Seen, file: ManifestFile) -> Reading | bytes:
        """See `Files.read`."""
        blob = WantedBlob(file.digest, file.size_bytes, seen.repo, seen.commit, file.path)
        hubs = self.hubs_for(seen.caller)
        scout = Scout(
            self._lan.source_peers, [UpstreamSource(upstream) for upstream in hubs.upstreams], self._lan.peers_called
        )
        return await self.files.read(blob, file, scout)

    async def _installed(self, repo: RepoId, commit: Commit) -> None:
        """Files have come into the cache: the names that led to their commit can be written beside them now."""
        for key, (_, resolution) in self._refs.items():
            if key[0] == repo and resolution.commit == commit and self._written.get(key) != commit:
                self._written.put(key, commit)
                await asyncio.to_thread(self._store.write_ref, *key, commit, resolution.answered_by)


_NO_COMMIT = Commit("0" * 40)


def _checked_refs(document: Any, hub: str) -> Json:
    """All refs, as a hub lists them. Raises HubUnreachable for what is no such listing."""
    try:
        lists = {kind: list(document.get(kind) or ()) for kind in ("branches", "tags", "converts", "pullRequests")}
        for ref in (ref for refs in lists.values() for ref in refs):
            if not all(isinstance(ref[key], str) for key in ("name", "ref", "targetCommit")):
                raise TypeError
    except (AttributeError, KeyError, TypeError) as error:
        raise HubUnreachable(f"{hub} lists refs that are none.", hint="Try again later.") from error
    return {**document, **lists}


def _document(content: Any, headers: Mapping[str, str]) -> Document:
    link = headers.get("link", "")
    address = link.partition("<")[2].partition(">")[0] if 'rel="next"' in link else ""
    return Document(content, address.partition("?")[2] or None, headers.get("x-total-count"))


def _weight(listing: Listing) -> int:
    return len(listing.manifest.files) + 100


def _ignore(event: Event) -> None:
    """Nobody watches."""
