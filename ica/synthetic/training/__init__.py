"""How models are made: `catalogue` lists the runs of runs.yml, `train` and `checkpoints` make them, `evaluation` says
what they do, `run` does one job, `results` keeps it, `sweep` makes and keeps small runs with many seeds, `workflow`
serves the Snakefile.
"""
