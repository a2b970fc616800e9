"""Decides what peers may have and what callers may see: applies the rules of `visibility` to the facts in the cache.

Every request for a range asks again. So the rows of the catalog, and the verdicts made of them, are kept in memory
until the catalog changes, also by another process. The owner's overrides and the files on the disk are read each time.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hfpeer.cache.commits.manifests import Manifests
from hfpeer.cache.commits.publications import Publications
from hfpeer.cache.index.catalog import Catalog
from hfpeer.cache.index.inventory import BlobFile, Inventory
from hfpeer.cache.index.schema import BlobRow
from hfpeer.cache.owner.overrides import AUTHOR, MESSAGE, Overrides
from hfpeer.git.proof import commit_body
from hfpeer.names import Commit, Digest, RepoId
from hfpeer.trust.visibility import (
    WHOLE_REPO,
    Fact,
    Verdict,
    gives_file,
    gives_openly,
    repo_verdict,
    shows_commit,
    verdict,
)

MAX_REMEMBERED = 4096
"""Digests, repos or commits whose rows are kept in memory. Beyond, all are read again."""
_OWN = commit_body("", author=AUTHOR, time_seconds=0, message=MESSAGE).removeprefix(b"tree ")
"""The end of a commit object that was made of a folder."""


@dataclass(frozen=True)
class _Kept:
    """Rows of the catalog, also empty results, and verdicts made of them. They hold while it has this
    `data_version`."""

    data_version: int
    places: dict[Digest, Sequence[BlobRow]] = field(default_factory=dict)
    commits: dict[Digest, Sequence[tuple[str, str]]] = field(default_factory=dict)
    facts: dict[str, Sequence[Fact]] = field(default_factory=dict)
    verdicts: dict[tuple[str, str], Verdict] = field(default_factory=dict)
    """By repo and commit, which is WHOLE_REPO for the verdict on the repo."""
    is_given: dict[tuple[str, str], bool] = field(default_factory=dict)
    is_listed: dict[tuple[str, str], bool] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return max(len(self.places), len(self.facts), len(self.verdicts), len(self.is_given), len(self.is_listed))


class SharedBlobs:
    """The rules on sharing, applied to this cache. Thread-safe."""

    def __init__(
        self,
        catalog: Catalog,
        inventory: Inventory,
        manifests: Manifests,
        overrides: Overrides,
        publications: Publications,
    ) -> None:
        self._catalog = catalog
        self._inventory = inventory
        self._manifests = manifests
        self._overrides = overrides
        self._publications = publications
        self._kept = _Kept(-1)
        self.shares_prepared = False
        """Whether the owner lets peers have prepared sets: a setting."""

    def verdict(self, repo: RepoId, commit: Commit | None = None) -> Verdict:
        """The verdict on a commit, by the answers of hubs to askers without a token; without a commit, on the repo."""
        return self._verdict(repo.folder, commit or WHOLE_REPO, self._still_kept())

    def word_on(self, repo: RepoId, commit: Commit, said: Verdict | None = None) -> str:
        """The visibility of a commit as people see it: that of its verdict, or published by this node, or given openly
        while no hub has answered. What was made of other commits has the word on one of them that peers may not see.
        `said` is the verdict, if the caller knows it."""
        if self.is_published(repo, commit):
            return self._word_on_published(repo, commit)
        word = (said or self.verdict(repo, commit)).visibility.value
        return "given" if word == "unknown" and self.is_given(repo, commit) else word

    def _word_on_published(self, repo: RepoId, commit: Commit) -> str:
        for made_of, source_commit in self.made_of(repo, commit):
            word = self.word_on(made_of, source_commit) if source_commit else "unknown"
            if word not in ("public", "given", "published"):
                return word
        return "published"

    def is_given(self, repo: RepoId, commit: Commit) -> bool:
        """Whether files of a commit are here, all of them were given openly, and no hub has closed the repo."""
        kept = self._still_kept()
        is_open = gives_openly(self._verdict(repo.folder, WHOLE_REPO, kept), owner=None)
        is_open = is_open and not self._verdict(repo.folder, commit, kept).is_closed
        return is_open and self._is_all_given(repo.folder, commit, kept)

    def is_all_given(self, repo: RepoId, commit: Commit) -> bool:
        """Whether files of a commit are here and all of them were given openly, whatever hubs say of the repo."""
        return self._is_all_given(repo.folder, commit, self._still_kept())

    def is_blob_given(self, blob: BlobFile, published_in: RepoId | None = None) -> bool:
        """Whether the bytes of a blob were given openly to a repo that no hub has closed, or to `published_in`: no hub
        can close a repo that was published on the LAN."""
        kept = self._still_kept()
        rows = self._places([blob.digest], kept)[blob.digest]
        if published_in is not None and any(row.is_given and row.repo == published_in.folder for row in rows):
            return True
        return any(self._is_open_place(row, kept, None) for row in rows)

    def is_commit_shared(self, repo: RepoId, commit: Commit) -> bool:
        """Whether peers may see a commit: by the owner's override, or else because an origin listed it without a token,
        this node published it, or all of it that is here was given openly."""
        return self._is_commit_shared(repo, commit, self._still_kept())

    def may_pass_on(self, repo: RepoId, commit: Commit, digest: Digest) -> bool:
        """Whether peers may have a blob because it is in a commit, also while it is being fetched."""
        return _has(self._given_in(repo, str(commit), self._still_kept()), digest)

    def may_pass_on_given(self, repo: RepoId) -> bool:
        """Whether peers may have bytes that other peers, or mirrors that see no token, are giving to a repo."""
        found = self._verdict(repo.folder, WHOLE_REPO, self._still_kept())
        return gives_openly(found, owner=self._overrides.of(repo))

    def blob(self, digest: Digest) -> BlobFile | None:
        """A blob that peers may have: verified, and of a shared commit or given openly."""
        return self.blobs([digest]).get(digest)

    def blobs(self, digests: Iterable[Digest], *, looks: bool = True) -> dict[Digest, BlobFile]:
        """Those of many blobs that peers may have, with one query of the catalog, or none.

        Unless it `looks` at each on the disk, they are as they were last seen: `BlobFile.open` tells what has changed.
        """
        kept = self._still_kept()
        places = self._places(list(digests), kept)
        # Read once for all blobs: the override of each repo, and the files of each commit that may be given.
        owners = {row.repo: self._overrides.of(RepoId.from_folder(row.repo)) for row in _first_of_repos(places)}
        given: dict[tuple[str, str], Container[Digest] | bool] = {}

        def is_shared(digest: Digest, rows: Sequence[BlobRow]) -> bool:
            if any(self._is_open_place(row, kept, owners[row.repo]) for row in rows):
                return True
            for folder, commit in kept.commits.get(digest, ()):
                if (folder, commit) not in given:
                    given[folder, commit] = self._given_in(RepoId.from_folder(folder), commit, kept)
                if _has(given[folder, commit], digest):
                    return True
            return False

        shared = [digest for digest, rows in places.items() if rows and is_shared(digest, rows)]
        choose = self._inventory.best if looks else self._inventory.as_last_seen
        found = {digest: choose(places[digest]) for digest in shared}
        return {digest: blob for digest, blob in found.items() if blob is not None and blob.is_verified}

    # The rule, applied

    def _is_commit_shared(self, repo: RepoId, commit: str, kept: _Kept) -> bool:
        owner, found = self._overrides.of(repo), self._verdict(repo.folder, commit, kept)
        is_closed = self._verdict(repo.folder, WHOLE_REPO, kept).is_closed
        is_given = owner is None and not found.is_public and not is_closed
        return shows_commit(
            found,
            owner=owner,
            is_published=self.gives_publication(repo, commit),
            is_given=is_given and self._is_all_given(repo.folder, commit, kept),
        )

    def _is_open_place(self, row: BlobRow, kept: _Kept, owner: bool | None) -> bool:
        """Whether peers may have a blob because of the repo that it is in: given openly, or shared by the owner."""
        if owner is True or not row.is_given:
            return owner is True
        return gives_openly(self._verdict(row.repo, WHOLE_REPO, kept), owner=owner)

    def _given_in(self, repo: RepoId, commit: str, kept: _Kept) -> Container[Digest] | bool:
        """The blobs that peers may have because they are in a commit: all, none, or those in its list."""
        found = self._verdict(repo.folder, commit, kept)
        owner = self._overrides.of(repo)
        is_published = owner is None and self.gives_publication(repo, commit)
        unlisted = gives_file(found, owner=owner, is_published=is_published, is_listed=False)
        listed = gives_file(found, owner=owner, is_published=is_published, is_listed=True)
        return self._listed(repo, commit, kept) if listed and not unlisted else unlisted

    def is_published(self, repo: RepoId, commit: str | None = None) -> bool:
        """Whether this node published a commit; without one, any of the repo."""
        published = self._publications.of(repo)
        is_by_older = self._overrides.is_published(repo)
        if commit is None:
            return is_by_older or any(one.is_own for one in published.values())
        found = published.get(Commit(commit))
        return (found is not None and found.is_own) or (is_by_older and self._looks_own(repo, commit))

    def gives_publication(self, repo: RepoId, commit: str) -> bool:
        """Whether peers may have a commit because this node published it. What was made of other commits, a conversion
        or a prepared set, only while peers may have those; a set only if the owner shares sets, too."""
        if repo.is_of_sets and not self.shares_prepared:
            return False
        sources = self.made_of(repo, commit)
        if not sources:
            return self.is_published(repo, commit)
        return self._publications.is_own(repo, Commit(commit)) and all(
            self._overrides.of(made_of) is True
            if source_commit is None
            else self.is_commit_shared(made_of, source_commit)
            for made_of, source_commit in sources
        )

    def made_of(self, repo: RepoId, commit: str) -> list[tuple[RepoId, Commit | None]]:
        """The repos and the commits, if they are known, that a prepared set or a conversion was made of; none for any
        other commit."""
        found = self._publications.of(repo).get(Commit(commit))
        pairs = [one.partition("@") for one in found.source.split()] if found is not None else []
        return [(RepoId.from_api_path(name), Commit(made_of) if made_of else None) for name, _, made_of in pairs]

    def _looks_own(self, repo: RepoId, commit: str) -> bool:
        """Whether a commit was made of a folder, by its commit object: an older version kept no marks."""
        manifest = self._manifests.load(repo, Commit(commit))
        return manifest is not None and (manifest.commit_object or b"").endswith(_OWN)

    # Rows of the catalog, kept

    def _still_kept(self) -> _Kept:
        """The rows that still hold. Rows are read after `data_version`, so a change in between makes all of them void
        at the next call."""
        data_version = self._catalog.data_version
        kept = self._kept
        if kept.data_version != data_version or kept.size > MAX_REMEMBERED:
            kept = self._kept = _Kept(data_version)
        return kept

    def _places(self, digests: Sequence[Digest], kept: _Kept) -> Mapping[Digest, Sequence[BlobRow]]:
        unknown = [digest for digest in digests if digest not in kept.places]
        if unknown:
            found = self._inventory.places(unknown)
            commits = self._catalog.commits_with(map(str, found))
            kept.commits.update((digest, commits.get(str(digest), ())) for digest in unknown)
            kept.places.update((digest, found.get(digest, ())) for digest in unknown)
        return {digest: kept.places[digest] for digest in digests}

    def _facts(self, folder: str, kept: _Kept) -> Sequence[Fact]:
        facts = kept.facts.get(folder)
        if facts is None:
            facts = kept.facts[folder] = self._catalog.facts.by_repo(folder).get(folder, ())
        return facts

    def _verdict(self, folder: str, commit: str, kept: _Kept) -> Verdict:
        """The verdict on a commit, or on the repo for WHOLE_REPO."""
        found = kept.verdicts.get((folder, commit))
        if found is None:
            facts = self._facts(folder, kept)
            found = repo_verdict(facts) if commit == WHOLE_REPO else verdict(facts, commit)
            kept.verdicts[folder, commit] = found
        return found

    def _is_all_given(self, folder: str, commit: str, kept: _Kept) -> bool:
        is_given = kept.is_given.get((folder, commit))
        if is_given is None:
            is_given = kept.is_given[folder, commit] = self._catalog.is_all_given(folder, commit)
        return is_given

    def _listed(self, repo: RepoId, commit: str, kept: _Kept) -> Container[Digest] | bool:
        """The files of a commit: by its proof, by the listing of its origin, or, where no listing is known, all that
        another tool has put into its snapshot. A list that only a peer or a mirror gave could name any blob here."""
        manifest = self._manifests.load(repo, Commit(commit))
        if manifest is None:
            return True
        if manifest.is_attested:
            is_listed = kept.is_listed.get((repo.folder, commit))
            if is_listed is None:
                is_listed = kept.is_listed[repo.folder, commit] = self._catalog.facts.is_listed(repo.folder, commit)
            if not is_listed:
                return False
        return manifest.sizes


def _has(given: Container[Digest] | bool, digest: Digest) -> bool:
    return given if isinstance(given, bool) else digest in given


def _first_of_repos(places: Mapping[Digest, Sequence[BlobRow]]) -> Iterable[BlobRow]:
    """One row for each repo."""
    return {row.repo: row for rows in places.values() for row in rows}.values()
