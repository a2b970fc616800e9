"""Finds and follows the peers that have a blob or are fetching it. Read first: `follower`."""
