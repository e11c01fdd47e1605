"""Which flota this is. Pure."""

VERSION = "0.1.0"
