"""How layers are computed on each platform. Everything that asks for a platform is here.

Each operation has one function that chooses the fastest way: attention.py, convolution.py,
group_norm.py, product.py, resize.py. The other files hold these ways. Begin with attention.py.
"""
