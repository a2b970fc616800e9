"""Settings, and the folders of a node. Read first: `settings`."""
