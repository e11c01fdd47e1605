"""Volumes of the Docker API."""
