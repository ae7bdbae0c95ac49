"""`python -m unmemorize` is the command line."""

from unmemorize.cli import main

if __name__ == "__main__":
    main()
