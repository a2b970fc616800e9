"""Finds the liars: sources that gave wrong bytes. Read first: `inquiry`."""
