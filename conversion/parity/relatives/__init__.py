"""OMGSR's relatives against their own published code, which a checkout has.

checkpoints.py   small random adapters in the files that their training code saves
stand_ins.py     what stands in for CUDA, torchvision and names that have moved, each by its name
theirs.py        their scripts and classes, run on pictures
report.py        pictures through theirs and ours, as a table and as JSON

A checkout is read and never written to. Nothing of it is copied here.
"""
