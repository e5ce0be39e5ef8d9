"""What the package is compared with: loops of our own, and settings of stock algorithms."""
