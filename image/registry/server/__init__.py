"""The fleet's own registry: OCI distribution-spec 1.1, server side."""
