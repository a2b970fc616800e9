"""The bytes of files, also while they are fetched. Read first: `files`."""
