"""Programs of users, written against the documented API alone; each is run as a script."""
