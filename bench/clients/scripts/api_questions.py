"""HfApi: its questions about a repo, and one file. Prints the answers, except those that only a hub can know."""

import json
import sys
from typing import Any

from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url

repo, path, commit = sys.argv[1:]
api: Any = HfApi()
info = api.model_info(repo, files_metadata=True)
large = next(sibling for sibling in info.siblings if sibling.rfilename == path)
metadata = get_hf_file_metadata(hf_hub_url(repo, path, revision="main"))
found = {
    "sha": info.sha,
    "files": sorted(api.list_repo_files(repo, revision=commit)),
    "large": [large.size, large.lfs.sha256, large.lfs.size],
    "tree": sorted(entry.path for entry in api.list_repo_tree(repo, recursive=True)),
    "paths": [(entry.path, entry.size) for entry in api.get_paths_info(repo, [path, "no.txt"])],
    "branches": [(ref.name, ref.target_commit) for ref in api.list_repo_refs(repo).branches],
    "latest": api.list_repo_commits(repo)[0].commit_id,
    "exists": [api.repo_exists(repo), api.file_exists(repo, path), api.file_exists(repo, "no.txt")],
    "metadata": [metadata.commit_hash, metadata.etag, metadata.size],
}
api.hf_hub_download(repo, "config.json")
print(json.dumps(found))
