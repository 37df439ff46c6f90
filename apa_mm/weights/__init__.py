"""Reading weights from files nobody vouches for, and comparing them."""
