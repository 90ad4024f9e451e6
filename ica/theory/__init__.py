"""Part I. Read `prompts` and `descent` first, then `constructions`, and `contract` for what each is built for;
`compare` measures, `limits`, `roles` and `imitation` ask what cannot be done and what is learned, `cost` counts,
`plots` draws.
"""
