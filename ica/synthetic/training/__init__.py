"""How models are made: `catalogue` lists the runs of runs.yml, `train` and `checkpoints` make them, `run`
does one job, `results` keeps it, `workflow` serves the Snakefile.
"""
