"""Picking and moving bytes: which piece of which blob from which source, until every blob is verified."""
