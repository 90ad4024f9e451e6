"""How a model is fetched (`assets`, `prepare`), looked at before it is read (`folders`, `headers`), read (`load`, by way of
`networks` and of `copies` of GGUF files) and asked: `templates` for conversations, `trees` and `scoring` for log-probabilities,
`generation` for text, `cache` for what was asked before, `engine` over all of them.
"""
