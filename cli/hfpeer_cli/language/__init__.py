"""The language of what a person reads: messages and help. Their English text is the key of each catalog."""
