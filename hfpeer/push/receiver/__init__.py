"""The receiver: the part of a push that runs at the far end, where Python is and hfpeer is not. Start with `main`."""
