"""One module per group of commands, imported when used."""
