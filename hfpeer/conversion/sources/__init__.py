"""Reads the files of a commit, a few rows at a time, in the order in which they lie there."""
