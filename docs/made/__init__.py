"""Makes the pages, tables and schemas of the documents that follow from the code. `python -m docs.made` writes them."""
