"""Packs and commits for git clients. Read first: `pack_cache`."""
