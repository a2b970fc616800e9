"""Ranges of blobs from one peer: blocking, for worker threads. Read `range_client` first."""
