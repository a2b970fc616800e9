"""What a shell takes from hfpeer: an environment, and completion."""
