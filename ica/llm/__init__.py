"""Part III, language models. Read `model` and `bbq`, then `protocol`, `analysis`, `jailbreak`, `paper`, `taught`; each
imports only from those before it.
"""
