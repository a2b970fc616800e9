"""Benchmarks: programs that measure hfpeer, or try to break it. They are not part of the product.

Run each as a module, from the root of the repository: `python -m bench.transfer --help`. The simulated hub, the
machines and the LAN that they need are those of the tests, in tests/fakes.
"""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tests")]
