"""Decides which range to request next, and from which source. Pure; time is handed in. Read first: `picker`."""
