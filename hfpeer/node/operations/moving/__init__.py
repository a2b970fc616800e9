"""The operations by which revisions leave this cache, or come from another one, without peers.

`archiving` is export and import, `pushing` goes over ssh, `local_dir` makes a plain folder.
"""
