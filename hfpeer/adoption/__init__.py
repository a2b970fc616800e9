"""Files of other tools: where they lie, which of them may be blobs, and how they come into the cache."""
