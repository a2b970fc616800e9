"""One add, and the accounts that it keeps. Read first: `adding`."""
