"""One blob, from many sources into one partial blob. Read first: `fetch`."""
