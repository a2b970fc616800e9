"""The local door as a Hub: what Hugging Face tools ask, answered from the node, the rest passed through to the hub."""
