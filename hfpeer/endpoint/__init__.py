"""The node as a Hub for Hugging Face tools: revisions, listings, info, files, packs. Read first: `endpoint`."""
