"""What an edit is: the neurons or weights of the MLPs that are selected and set to zero."""
