"""Speed of a run's own step beside a peer."""
