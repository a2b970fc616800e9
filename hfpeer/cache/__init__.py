"""The Hugging Face cache on this machine: finding, writing, ingesting, sharing and removing blobs and files.

Read first: `store`, the entrance for everything above. Nothing here opens a connection. Only bytes that the caller has
verified become visible in `blobs/` or `snapshots/`.
"""
