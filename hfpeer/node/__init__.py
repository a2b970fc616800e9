"""A whole node in one process. Read first: `node`, then `adding`."""
