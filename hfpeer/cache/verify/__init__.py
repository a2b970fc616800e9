"""Says what is wrong in a cache, without a network and without a change. Read `verification` first."""
