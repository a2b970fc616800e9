"""Operations over the Unix socket, between the command line and the daemon. Read first: `operations`."""
