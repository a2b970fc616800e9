"""An offline Hugging Face Hub, faithful on the wire: real git repositories, an LFS store, a CDN, tokens, faults.

    with HubSimulator() as hub:
        commit = hub.put_repo("model", "acme/tiny", {"config.json": b"{}", "model.safetensors": Lfs(weights)})
        hub.inject(faults.cut_body_after(1000), method="GET", path="/repos/*", listener="cdn", times=1)
        ...                                  # run a client with HF_ENDPOINT=hub.endpoint
        assert not hub.requests_with_token()

It stands alone: git and the standard library are all it needs.
"""

from . import faults
from .content import Content, Executable, Lfs, LocalFile, SparseFile, Submodule, Symlink, pointer_text
from .faults import Fault
from .injection import InjectedFault
from .record import RecordedRequest
from .repo import Entry, Repo, Snapshot
from .simulator import HubSimulator
from .site import Behaviour
from .storage import Storage, User
from .zoo import MANY_FILES, ZOO_FILES, put_many, put_zoo

__all__ = [
    "MANY_FILES",
    "ZOO_FILES",
    "Behaviour",
    "Content",
    "Entry",
    "Executable",
    "Fault",
    "HubSimulator",
    "InjectedFault",
    "Lfs",
    "LocalFile",
    "RecordedRequest",
    "Repo",
    "Snapshot",
    "SparseFile",
    "Storage",
    "Submodule",
    "Symlink",
    "User",
    "faults",
    "pointer_text",
    "put_many",
    "put_zoo",
]
