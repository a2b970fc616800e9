"""The Hub's cache as files: paths, locks, folders, errors of the disk. Read first: `layout`."""
