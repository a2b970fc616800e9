"""Prepared sets: the Arrow files that the `datasets` library makes of a dataset repo. Start with `manifest`.

Only `arrow` imports pyarrow, and nothing here imports `datasets`.
"""
