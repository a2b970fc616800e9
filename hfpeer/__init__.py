"""hfpeer: all the Hugging Face caches of a LAN as one."""

__version__ = "0.1.0"
