"""Hostile input: files, models, command lines and checkpoints, each with the answer that is due.

judge.py      what every case is held to
edits.py      ways to damage a file; a case is an edit and the words that are due
corpus.py     all cases of a table at once
models.py, bases.py, adapters.py    the tables: converted models, diffusers folders, adapters
mutations.py  random damage, for hypothesis
"""
