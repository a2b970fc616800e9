"""What lies in the cache, what of it can go, and how it goes."""
