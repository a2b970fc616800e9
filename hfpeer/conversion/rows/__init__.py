"""Rows of a source as rows of the output: pictures, labels, values, names of columns."""
