"""The command line: `sitq demo`, `sitq worker`, `sitq stats`, `sitq doctor`."""
