"""`python -m overnight_worker`: the worker command."""

from overnight_worker.main import main

if __name__ == "__main__":
    main()
