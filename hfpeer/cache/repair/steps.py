"""Carries out the steps that need no bytes and no network."""

from __future__ import annotations

from hfpeer.cache.disk import layout
from hfpeer.cache.repair import structure
from hfpeer.cache.repair.planning import Step
from hfpeer.cache.repair.results import (
    COPY,
    OPEN,
    REMOVE,
    REMOVE_REF,
    RENAME,
    SET_ASIDE,
    WRITE_LIST,
    WRITE_PROOF,
    WRITE_REF,
)
from hfpeer.cache.store import Store
from hfpeer.names import Digest


def carry_out(store: Store, step: Step) -> None:
    """Blocking. Raises CorruptData, NoSpace, BrokenCache."""
    repo, commit, finding, cache = step.repo, step.commit, step.finding, store.cache
    path = layout.repo_folder(cache, repo) / finding.path
    if step.action == OPEN and finding.kind == "not_group_writable":
        structure.open_to_group(cache, repo)
    elif step.action == OPEN:
        structure.open_own(cache, path)
    elif step.action == RENAME:
        structure.rename_blob(cache, repo, path, Digest.from_etag(path.name.lower()))
    elif step.action == COPY:
        structure.copy_in(cache, repo, Digest.from_etag(path.name))
    elif step.action == SET_ASIDE:
        structure.set_aside(cache, repo, path)
    elif step.action == WRITE_REF and step.revision is not None:
        structure.write_ref(cache, repo, step.revision, commit)
    elif step.action == REMOVE_REF:
        structure.remove_file(cache, path)
    elif step.action in (WRITE_LIST, WRITE_PROOF):
        manifest = store.manifests.load(repo, commit)
        if manifest is not None and step.action == WRITE_LIST:
            structure.write_list(store, manifest)
        elif manifest is not None:
            structure.write_proof_anew(store, manifest)
    elif step.action == REMOVE:
        places = {
            "false_absence": layout.absences_path(cache, repo, commit) / finding.path,
            "bad_listing": layout.tree_path(cache, repo, commit),
            "bad_proof": layout.proof_path(cache, repo, commit),
        }
        structure.remove_file(cache, places[finding.kind])
