"""Commands for shells: an environment, and completion."""
