"""Reads what lies in a cache. Read first: `survey`."""
