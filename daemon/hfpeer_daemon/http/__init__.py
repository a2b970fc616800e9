"""The HTTP server of all three doors: sockets, connections, responses, zero copy."""
