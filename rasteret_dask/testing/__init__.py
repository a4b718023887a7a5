"""What the tests of this package, and of its users, need."""
