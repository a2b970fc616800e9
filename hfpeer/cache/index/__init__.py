"""The index of the cache in SQLite: an index and statistics that a scan can rebuild. Read first: `catalog`."""
