"""`hfpeer verify`: the faults of a cache, and their repair."""
