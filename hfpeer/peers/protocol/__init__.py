"""The messages between nodes, as values. Pure. Read first: `paths`."""
