"""The files of a commit as a hub lists and proves them. Read first: `file_lists`."""
