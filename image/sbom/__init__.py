"""What is in an image: its packages, found in its files, as an SPDX document."""
