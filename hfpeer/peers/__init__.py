"""The other nodes of the LAN: who they are, whether they answer, and what they can be asked for.

`table` remembers them, `discovery` finds them, `client` asks them for what is small and `bodies` for blobs. Whatever
a peer says is hearsay until a digest or a git proof has confirmed it; nothing here believes or installs anything,
and no token or cookie ever goes out through here.
"""
