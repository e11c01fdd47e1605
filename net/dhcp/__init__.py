"""Addresses from a site's own DHCP server: one client per endpoint asks, the agent acts on it."""
