"""Decides what of a cache goes. Pure. Read first: `plan`."""
