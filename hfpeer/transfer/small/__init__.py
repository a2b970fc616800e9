"""The small files of a commit, fetched together as a bundle. Read first: `fetch`."""
