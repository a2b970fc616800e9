"""What a node does when it is asked: a file for each operation, or for a few over the same thing."""
