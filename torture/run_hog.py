"""A process that keeps a processor busy: `run_hog FILE`; it leaves the file alone."""

while True:
    pass
