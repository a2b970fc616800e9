"""What a hub's response means: its body decoded, its error as one of ours, the rest that it asks for."""
