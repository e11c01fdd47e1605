"""Layers from other hosts of the fleet: who is asked for which part, how it comes, what this host gives."""
