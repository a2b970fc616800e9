"""`hfpeer modelscope`: the commands, the site that they ask, and what they print."""
