"""Whole files: verifying them, and making others from them."""
