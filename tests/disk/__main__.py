"""Crash, cut the power and fail at every call, and print how many of each there were."""

import os
import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
    arguments = sys.argv[1:]
    if "--long" in arguments:
        arguments.remove("--long")
        os.environ["SITQ_DISK"] = "long"
    sys.exit(pytest.main(["-q", str(Path(__file__).parent), *arguments]))
