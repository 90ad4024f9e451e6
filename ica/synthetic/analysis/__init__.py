"""What is read off trained models: `panels` serves the six panels, `stated` and what begins with it the panels as the
paper states them, `walk` the way between that and the code; `rules`, `readouts`, `measures`, `controls`, `fair` and `fair_rules` the
mechanism; `geometry` and `existence` the minimiser; `noise`, `loop` and `stated_loop` critics; `released` holds the authors' numbers.
"""
