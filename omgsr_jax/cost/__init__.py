"""What a program costs: its arithmetic, its memory and its traffic, counted before it runs.

Begin with flops.py.

flops.py          the arithmetic that a step or a network needs, from its own matrix products
programs.py       collectives, as a compiled program's text names them
ahead_of_time.py  the training step compiled for devices that are not there
"""
