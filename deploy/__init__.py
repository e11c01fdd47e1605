"""Provisioning, and the scripts that start the demo and the tests."""
