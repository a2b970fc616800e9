"""HTTP hubs: what they list, prove and give, and who may see a token.

`hub` is the one hub as a whole, `hubs` several of them in order. Below them: `access` decides where a token goes and
which redirects are followed, `refusals` reads what a hub says when it says no, `api` asks for JSON, `git` fetches
trees over git's smart HTTP, `listing` makes a manifest of both, `bodies` opens ranges of files. Nothing here writes
to disk but git's temporary pack, and nothing here is believed that cannot be checked.
"""
