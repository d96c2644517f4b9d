"""Hostile input: files, models, command lines and checkpoints, each with the answer that is due.

judge.py           what every case is held to
command_lines.py   wrong usage, and names that lead nowhere
"""
