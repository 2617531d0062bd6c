"""What is wrong with a lifecycle that could be made."""
