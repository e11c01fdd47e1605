"""Building images: a graph of steps, their cache, and who runs them."""
