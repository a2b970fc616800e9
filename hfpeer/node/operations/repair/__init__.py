"""`verify --repair`: rounds of a verification and of what it asks for."""
