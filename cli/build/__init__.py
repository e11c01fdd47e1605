"""`flota build`: what the command line says, the context that it sends, what it shows and writes."""
