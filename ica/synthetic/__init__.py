"""Part II, the synthetic experiment. Read `task`, then `training`, then `analysis`; each imports only from
those before it.
"""
