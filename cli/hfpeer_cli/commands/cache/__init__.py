"""`hfpeer cache`: all that lies in the cache, what it takes, and what of it goes. Read `noun` first."""
