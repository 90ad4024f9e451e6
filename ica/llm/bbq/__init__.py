"""The questions of BBQ: `items` reads them, `groups` says who is meant, `templates` and `index` (a tool that
made index.json) place items in the official files.
"""
