"""What is folded from the events: the states of sessions and streams, and an application's own."""
