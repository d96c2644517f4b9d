"""Hostile input: files, models, command lines and checkpoints, each with the answer that is due.

judge.py      what every case is held to
images.py     the corpus of images (image_cases_*.py), from pngs.py, tiffs.py and profiles.py
"""
