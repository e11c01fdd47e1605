"""A physical link as a port of a bridge of ours: what the host had on it moves over, and back.

A process of its own does it, so that neither the agent's death nor its own leaves the host without its link.
"""
