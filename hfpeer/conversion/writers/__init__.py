"""Writes rows as files: as they come, with their hash, and the same bytes everywhere."""
