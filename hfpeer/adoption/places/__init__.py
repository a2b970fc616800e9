"""One module for each tool, or for tools with one layout: how its files lie, and what it knows of them. Pure."""
