"""Git and git-lfs at the endpoint. Read first: `git`."""
