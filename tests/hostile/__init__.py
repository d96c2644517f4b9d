"""Hostile input: files, models, command lines and checkpoints, each with the answer that is due.

judge.py            what every case is held to
images.py           images (image_cases_*.py), made with pngs.py, tiffs.py and profiles.py
models.py, bases.py, adapters.py    converted models, diffusers folders, adapters
checkpoints.py      work directories of runs
command_lines.py    wrong usage, and names that lead nowhere
edits.py            ways to damage a file; a case is an edit and the words that are due
corpus.py           all cases of a table at once
mutations.py        random damage, for hypothesis
"""
