"""What a model is asked. Read `prompts`, `options` and `readings`, then `blocks`, and `review` and `released` (the review
for bias, scored and written); `shards`, `measure`, `extend`, `results` and `workflow` run them and keep the answers.
"""
