"""The sides of a collection: what its methods do, by what they are about."""
