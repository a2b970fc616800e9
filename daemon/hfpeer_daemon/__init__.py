"""The daemon: the three HTTP doors of a node. Decisions are in `hfpeer`; this package listens and responds."""
