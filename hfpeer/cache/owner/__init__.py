"""What the owner has said: what peers may have, and what no cleaning removes."""
