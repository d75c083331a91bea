"""Settings for all tests."""

from hypothesis import settings

# The same examples on every machine and in every run, and no deadline: a busy machine is no bug.
settings.register_profile("gristmill", deadline=None, derandomize=True, database=None)
settings.load_profile("gristmill")
