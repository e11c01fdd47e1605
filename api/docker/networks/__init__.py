"""Networks of the Docker API."""
