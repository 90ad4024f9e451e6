"""Part I. Read `prompts` and `descent` first, then `constructions`; `compare` measures, `limits` and
`imitation` ask what cannot be done and what is learned, `cost` counts.
"""
