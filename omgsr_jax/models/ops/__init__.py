"""How a layer is computed where: attention, convolutions, norms, resizing.

Everything that asks for a platform is here. One function an operation chooses what is faster
where: attention.py, convolution.py, group_norm.py, product.py, resize.py. The other files are the
ways that they choose from. Begin with attention.py.
"""
