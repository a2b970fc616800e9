"""The operations on prepared sets: list, verify, remove, build, share and take them.

They work on the caches in this process, also while a daemon runs: nothing of pyarrow or `datasets` enters a daemon.
"""
