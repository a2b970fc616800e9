"""A request to the endpoint: its caller, its path, its body. Read first: `request`."""
