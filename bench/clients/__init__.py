"""Which clients work through the endpoint: real ones, in environments of their own, in front of a simulated hub.

`python -m bench.clients --help` in the repository's root. It is a program, not a part of the product; what it finds is
kept in CLIENTS.md.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "tests")]  # where the simulated hub and the machines are
