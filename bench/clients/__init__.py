"""Which clients work through the endpoint: real ones, in environments of their own, in front of a simulated hub.

`python -m bench.clients --help` in the repository's root. It is a program, not a part of the product; its result is
kept in docs/en/reference/tested-clients.md.
"""
