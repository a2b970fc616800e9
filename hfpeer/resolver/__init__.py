"""From a revision to a commit, and from a commit to its manifest. Read first: `commits`, then `manifests`."""
