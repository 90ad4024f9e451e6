"""The paper's own protocol for one model, `make paper-llm`. Read `texts` and `chats`, then `bias` and
`defence`, what is asked; `settings`, `memory`, `checkpoint` and `run` do it, whole or in `parts`; `results` and `summary` read
what it left.
"""
