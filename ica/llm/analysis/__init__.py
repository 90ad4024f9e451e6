"""What answers say: `metrics` and `statistics` measure, `conditions`, `effects`, `selfcheck` and
`correlation` compare, `plots` draws, `dialogues` puts single items together again.
"""
