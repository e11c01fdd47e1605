"""Storage drivers: how layers become a container's root."""
