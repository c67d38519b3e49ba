"""`python -m dlx` is `dlx`."""

from dlx.cli.main import run

if __name__ == "__main__":
    run()
