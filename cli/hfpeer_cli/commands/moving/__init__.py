"""Revisions on their way between the cache and other places: archives, other machines, folders, other tools."""
