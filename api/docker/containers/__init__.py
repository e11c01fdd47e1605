"""Containers as Docker's clients make and see them."""
