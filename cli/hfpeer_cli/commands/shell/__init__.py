"""The texts that a shell takes from hfpeer: an environment, and completion."""
