"""The Docker Engine API, over the same ports as the native one."""
