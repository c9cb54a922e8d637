"""Whole files: made from a journal, or out of what is left of one, and checked.

A file that is made has no name of its own before it is complete; `targets` sees to that.
"""
