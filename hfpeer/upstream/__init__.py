"""HTTP hubs: their listings, proofs and files, and the rules for tokens.

Read first: `upstream`, one hub. Nothing here writes to disk, except git's temporary pack.
"""
