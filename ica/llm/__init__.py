"""Part III, language models. Read `model` and `bbq`, then `protocol`, `analysis`, `jailbreak`; each imports
only from those before it.
"""
