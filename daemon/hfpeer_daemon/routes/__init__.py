"""What each door answers: `peer` on the LAN, `endpoint` on loopback, `control` on the Unix socket."""
