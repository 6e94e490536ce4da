"""Settings of all tests: property tests are deterministic and have no deadline of their own."""

from hypothesis import settings

settings.register_profile("house", derandomize=True, deadline=None, max_examples=60)
settings.load_profile("house")
