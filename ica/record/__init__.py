"""What a notebook uses to write down what it found: `record` keeps figures (`figures`), tables, numbers and
`claims`, with their `provenance`; registry/ holds the criteria.
"""
