"""What people touch: the command line, and later the page and the server."""
