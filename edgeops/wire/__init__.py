"""The words both sides speak (docstring to be completed)."""
