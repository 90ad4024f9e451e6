"""Weights that do gradient steps. Read `layout` and `basics`, then `bradley_terry` and `plackett_luce`; the
others extend these two.
"""
