"""How a model is fetched (`assets`, `prepare`), loaded (`load`) and asked: `trees` and `scoring` for log-
probabilities, `generation` for text, `cache` for what was asked before, `engine` over all of them.
"""
