"""The part of a kit that runs on the board itself: standard library and Python 3.8 only, imported by no other part."""
