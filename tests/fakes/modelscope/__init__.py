"""An offline ModelScope, faithful on the wire: users and tokens, repos, listings, LFS uploads, commits, a CDN, faults.

    with ModelScopeSimulator() as site:
        site.put_repo("model", "team/tiny", {"model.safetensors": weights}, lfs=["model.safetensors"])
        site.inject(faults.html(413), method="PUT", listener="lfs", times=1)
        ...                                  # run a client with MODELSCOPE_ENDPOINT=site.endpoint

`tests/contract/test_modelscope_simulator.py` drives ModelScope's own client through it.
"""

from . import faults
from .simulator import ModelScopeSimulator
from .site import Behaviour
from .storage import BAD_TOKEN, OWNER, READER, STRANGER, User

__all__ = ["BAD_TOKEN", "OWNER", "READER", "STRANGER", "Behaviour", "ModelScopeSimulator", "User", "faults"]
