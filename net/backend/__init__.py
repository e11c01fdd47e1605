"""Network backends: each only describes links, neighbours, routes and rules as values."""
