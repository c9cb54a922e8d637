"""What an event is: its kinds, models and values, and how its JSON is read and written.

Nothing here knows of storage.
"""
