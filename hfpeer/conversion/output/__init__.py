"""The folder of a conversion, and the files that are made of its parts. Read first: `output`."""
