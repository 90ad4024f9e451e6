"""Weights that do gradient steps. Read `layout` and `basics`, then `bradley_terry` and `plackett_luce`; `tokens`
reads them as the paper writes them, the others extend these two.
"""
