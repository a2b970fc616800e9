"""For all tests: a property is not broken because the machine is busy, and what a test starts hears Ctrl-C.

A shell starts a background job with SIGINT ignored, and what the job starts would ignore it, too.
"""

from __future__ import annotations

import signal

from hypothesis import settings

# The same examples in every run: it fails only for what was changed. `--hypothesis-profile explore` tries others.
settings.register_profile("same examples", settings(deadline=None, derandomize=True))
settings.register_profile("explore", settings(deadline=None, max_examples=2000))
settings.load_profile("same examples")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
