"""What everything stands on: errors, files that are whole or absent, sizes for people, the folders of a checkout."""
