"""The parts of an OCI runtime configuration (opencontainers/runtime-spec 1.0.2), pure functions. Pure."""
