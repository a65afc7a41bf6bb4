"""The page that tells a whole run: what is read (`facts`), what is made of it, and how it looks (`page`)."""
