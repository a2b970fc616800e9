"""The operations on the cache as a whole: what is in it, what of it goes, and which folders it has.

`cached` lists, tells why, publishes and shares. `cleaning` reports and removes. `folders` says what a folder can be a
cache of, `relocation` moves a cache to another disk.
"""
