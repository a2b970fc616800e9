"""ModelScope: a site of models and datasets beside the Hub. Repos are pushed to it, and it gives ranges of equal files.

Speaks its API with httpx. Its token goes to the site's own hosts only, and no other token goes there.
"""
