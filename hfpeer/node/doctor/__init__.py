"""Looks for the faults of a machine and a LAN that keep a node from working, and names the command that mends each."""
