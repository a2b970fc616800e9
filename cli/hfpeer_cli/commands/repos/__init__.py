"""Verbs of repos."""
