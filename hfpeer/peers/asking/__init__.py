"""Sends requests to peers: read `peer_client` first."""
