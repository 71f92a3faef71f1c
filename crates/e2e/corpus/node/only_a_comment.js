// Nothing to do, and nothing said about it.
