"""The commits that this node knows: their manifests, their proofs, and those published on the LAN."""
