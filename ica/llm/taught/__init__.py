"""Critics that are taught: `items` makes short reading questions, `rows` what is taught with them, `settings` says which arms
there are, `train` teaches, `evaluate` asks the taught model, `run` does both for one arm and seed, `results` reads it all back.
"""
