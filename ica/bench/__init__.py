"""What `make bench` measures: our computations beside other ways to the same numbers, in turns, on one machine.

It may import everything; nothing imports it.
"""
