"""The command line of hfpeer: parse, call a node's operations, print. It decides nothing."""
