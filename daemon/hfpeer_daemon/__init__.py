"""The daemon: the HTTP faces of a node. What decides is in `hfpeer`; this package only listens and answers."""
