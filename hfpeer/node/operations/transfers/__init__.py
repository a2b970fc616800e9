"""The adds of a daemon as transfers, in a queue that outlives terminals and the daemon. Read `transfers` first."""
