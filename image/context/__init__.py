"""Build contexts: files from a folder, a tar, a URL or a git repository, as objects by digest."""
