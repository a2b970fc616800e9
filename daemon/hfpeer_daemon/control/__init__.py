"""The control door: the operations of the owner's command line."""
