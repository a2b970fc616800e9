"""One part of a conversion, and the process that makes parts. Read first: `part`."""
