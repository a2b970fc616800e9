"""Git's formats: proof from trees, LFS pointers, packs, .gitattributes. Read first: `proof`."""
