"""For all tests: a property is not broken because the machine is busy."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("any machine", settings(deadline=None))
settings.load_profile("any machine")
