"""One command a file, named as it is typed: `state show` is state_show.py."""
