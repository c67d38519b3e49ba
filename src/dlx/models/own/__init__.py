"""Networks of the user's own, `my_net.py:Net`: what the engine needs of them, and how it is found."""
