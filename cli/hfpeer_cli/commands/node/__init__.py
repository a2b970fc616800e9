"""The node on this machine, and its peers."""
