"""Container networks: desired kernel state as a value, one diff, one driver, a reconciler that repairs drift."""
