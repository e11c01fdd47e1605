"""What tests share: the census, condition waits, builders. Not collected as tests."""
