"""Verbs of datasets only: prepared sets, and conversions."""
