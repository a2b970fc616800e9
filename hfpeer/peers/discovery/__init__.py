"""How a node finds its peers: by multicast, by DNS names, by a registry. Read `discovery` first."""
