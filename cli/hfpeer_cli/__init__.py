"""The command line of hfpeer: it parses words, calls a node's operations and prints. Read first: `main`, `root`."""
