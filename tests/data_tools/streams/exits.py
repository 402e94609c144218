"""A reader process that ends before it says anything."""

import os

if __name__ == "__main__":
    os._exit(7)
