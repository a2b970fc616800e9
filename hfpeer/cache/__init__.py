"""The Hugging Face cache on this machine: what is in it, what is on its way into it, what leaves it.

`Store` is the one door for everything above; the modules behind it each own one part: `layout` where things lie,
`locks` the Hub client's locks, `journal` and `blobs` the partial files, `snapshots` what other tools see, `scan` what
others put there, `catalog` the index of it all, `evict` what may go. Nothing here opens a connection, and nothing
becomes visible in `blobs/` or `snapshots/` that the caller has not verified.
"""
