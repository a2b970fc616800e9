"""Pushes repos of the Hub to ModelScope and compares the two, in the process of the command."""
