"""From a service's spec to the instances it should have. Pure."""
