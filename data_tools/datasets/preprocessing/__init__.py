"""Text to datasets: what is asked for, how it goes on where it was killed, what is written."""
