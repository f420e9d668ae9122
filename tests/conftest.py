"""Property tests draw the same examples every time, so that a failure is a change of ours and not of chance."""

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
