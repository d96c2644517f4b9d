"""The published code itself as the other side: wuer5/OMGSR's own classes and `main()`, on the CPU.

checkout.py     which version a checkout is; its modules and scripts
stand_ins.py    what stands in for CUDA, the hub and packages that are not there, each by name
judges.py       small random networks for the losses, in the files that the hub would give
networks.py     these networks in PyTorch, as the hub hands them out
inference.py    pictures through the published script and through ours
training.py     optimiser steps of both, with the same random numbers
theirs.py       the published training `main()`, run on given numbers
report.py       all of it, as a table and as JSON

The checkout is read and never written to. Nothing of it is copied here.
"""
