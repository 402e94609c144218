"""From a job script to running ranks: what is checked, what is started, how it ends."""
