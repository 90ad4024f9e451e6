"""What is asked: `data` and `tokens` make prompts, `config` fixes a run, `metrics`, `prefixes`, `baselines`
and `floor` say what is good.
"""
