"""The operating system: owners of files, cancelling work in threads, text for a terminal."""
