"""What goes over the wire: one typed model for every body, with an example of each."""
