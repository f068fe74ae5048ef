"""One file, one trick.

README.md in this folder is written by `bench tricks --write`.
"""
