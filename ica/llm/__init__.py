"""Part III, language models. Read `model` and `bbq`, then `protocol`, `analysis`, `jailbreak`, `paper`; each
imports only from those before it.
"""
