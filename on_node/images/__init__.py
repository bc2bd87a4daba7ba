"""Container images: built, tested, published, fetched, taken away, on the hosts that keep them."""
