"""Networks of the user's own, `my_net.py:Net`: their names, files and arguments, and which of them may be loaded."""
