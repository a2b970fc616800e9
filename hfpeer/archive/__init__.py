"""Archives: revisions of the cache in one tar, to carry them to a machine without a network. Start with `index`."""
