"""Networks on this machine: ports, a relay, a LAN of namespaces with the Internet behind it. Read first: `lan`."""
