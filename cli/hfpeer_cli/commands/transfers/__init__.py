"""`hfpeer transfers` and `hfpeer history`: the adds that run in the daemon, and those that are over."""
