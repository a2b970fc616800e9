"""Decides which caller may see which commit. Read first: `admission`."""
