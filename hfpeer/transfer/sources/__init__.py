"""What can give ranges of a blob: peers, upstreams, ModelScope, files of this machine. Read first: `sources`."""
