"""What this node knows of its peers. Read first: `table`."""
