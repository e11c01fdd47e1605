"""The language of Dockerfiles, pure: text → `parser` → `instruction` → `words` → `image.build.graph`."""
