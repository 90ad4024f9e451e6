"""What a model is asked. Read `prompts`, `options` and `readings`, then `blocks` and `released` (dialogues);
`shards`, `measure`, `results` and `workflow` run them and keep the answers.
"""
