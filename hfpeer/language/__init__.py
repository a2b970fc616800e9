"""Texts for people, for the command line and the page alike: a catalog of translations, sizes and times in words."""
