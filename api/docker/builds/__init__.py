"""Builds by the Docker API: `POST /build` and what builds keep."""
