"""`python -m dlx` is `dlx`: it too imports nothing from the working folder, which Python has put first on the path."""

from dlx.system.safe_path import leave_out_working_folder

leave_out_working_folder()

from dlx.cli.entry import main  # noqa: E402 (the path comes first)

if __name__ == "__main__":
    main()
