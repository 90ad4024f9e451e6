"""What is asked: `data` and `tokens` make prompts, `config` fixes a run, `metrics` and `prefixes` say how far off it
is, `baselines`, `bayes`, `noisy_bayes`, `limit` and `floor` what there is to compare it with.
"""
