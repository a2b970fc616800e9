"""The version of hfpeer, as the package index, peers and clients are told it."""

__version__ = "0.1.0"
