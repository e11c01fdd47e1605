"""Images by the Docker API: lists, registries, archives, commits."""
