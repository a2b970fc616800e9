"""Everything that needs pyarrow, which comes with the extra `hfpeer[datasets]`. Imported only by commands on sets."""
