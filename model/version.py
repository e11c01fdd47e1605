"""The version of this flota, as pyproject.toml has it. Pure."""

VERSION = "0.1.0"
