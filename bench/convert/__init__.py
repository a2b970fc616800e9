"""Conversions of datasets, measured and disturbed: `python -m bench.convert`."""
