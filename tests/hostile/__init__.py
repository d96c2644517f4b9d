"""Hostile input: files, models, command lines and checkpoints, each with the answer that is due.

judge.py           what every case is held to
images.py          images (image_cases_*.py), made with pngs.py, tiffs.py and profiles.py
command_lines.py   wrong usage, and names that lead nowhere
checkpoints.py     work directories of runs
"""
