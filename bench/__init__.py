"""ConvBoard: which convolution operator should stand in this slot of my network?"""

__version__ = "0.1.0"
