"""The other nodes of the LAN: finds them, probes them, and requests messages and blobs from them.

Read first: `neighbourhood`. Nothing here trusts or installs what a peer sends; a digest or a git proof confirms it
elsewhere. Requests carry no token and no cookie.
"""
