"""Images: references, manifests, content, layers, storage drivers, the registry client."""
