"""Builds on this host: their steps in containers, and the connections of those who ask for them."""
