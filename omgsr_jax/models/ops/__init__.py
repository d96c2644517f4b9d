"""How a layer is computed where: attention, convolutions, norms, resizing.

Everything that asks for a platform is here. Begin with attention.py.
"""
