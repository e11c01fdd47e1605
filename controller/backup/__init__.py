"""Backups of a fleet's controller: the archive, its seal, and the way back from it."""
