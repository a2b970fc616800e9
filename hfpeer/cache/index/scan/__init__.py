"""Brings the catalog up to date with what lies on the disk. It reads names, links and stats, never the bytes of a
blob."""
