"""Blobs that are not yet whole: data, the journal of pieces, the hash. Read first: `blob`."""
