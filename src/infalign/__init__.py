"""Train language models for the way they will be decoded.

Importing this package never imports torch.
"""
