"""Fetches blobs: picks ranges and sources, moves the bytes and verifies every blob. Read first: `snapshot`, then
`fetch.fetch` and `picker.picker`."""
