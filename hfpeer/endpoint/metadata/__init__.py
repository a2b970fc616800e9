"""Revisions, listings and repo infos in the Hub's own JSON. Read first: `view`."""
