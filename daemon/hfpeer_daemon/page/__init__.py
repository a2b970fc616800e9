"""The page at the endpoint's root, for a browser: the numbers that the commands print. It changes nothing."""
