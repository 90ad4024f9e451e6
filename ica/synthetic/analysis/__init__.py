"""What is read off trained models: `panels` serves the six panels; `rules`, `readouts`, `measures` and
`controls` the mechanism; `noise` and `loop` critics; `released` holds the authors' numbers.
"""
