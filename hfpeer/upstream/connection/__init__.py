"""Connections to hubs: which certificates, which proxy, which address."""
