"""The public benchmark of the swarm: a LAN in network namespaces, hfpeer, and what people would use instead.

`python -m bench.swarm --help` in the repository's root. It is a program, not a part of the product, and needs root.
"""
