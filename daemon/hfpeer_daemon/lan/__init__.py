"""The LAN door: the requests of peers."""
