"""Container networks: desired kernel state as a value, one diff, one driver, repair of drift."""
