"""Trainable embedding tables that do not have to fit in memory.

Public names only; importing this loads no numba, torch, CUDA, rich or matplotlib.
"""
