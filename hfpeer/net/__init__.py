"""HTTP/1.1, addresses, rate limits and asyncio tasks. Knows no repo. Read first: `http1`."""
