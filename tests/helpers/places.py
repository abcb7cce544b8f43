"""Where things are: the checkout, and the scripts beside this file that tests run as processes."""

from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
HELPERS = Path(__file__).parent
