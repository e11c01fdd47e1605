"""Running OCI bundles: the Runtime seam, and runc under conmon behind it."""
